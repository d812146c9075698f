import json

import pytest
from records import make_clip, make_view
from video_files import write_video

from autodrive.datasets.manifest import load_clips
from autodrive.errors import InputError
from autodrive.schema import DataFile, write_jsonl
from autodrive.video.preflight import scan


def clip(number, road):
    return make_clip(make_view(road), id=f"v{number}#0", source_video_id=f"v{number}")


def test_paths_become_absolute(tmp_path):
    inside, outside = tmp_path / "set" / "videos" / "a.mp4", tmp_path / "b.mp4"
    inside.parent.mkdir(parents=True)
    inside.touch()
    outside.touch()
    manifest = tmp_path / "set" / "clips.jsonl"
    write_jsonl(manifest, [clip(0, "videos/a.mp4"), clip(1, outside)])
    assert [c.road.path for c in load_clips(manifest)] == [str(inside), str(outside)]


def test_missing_videos_are_counted_and_the_first_named(tmp_path):
    (tmp_path / "a.mp4").touch()
    manifest = tmp_path / "clips.jsonl"
    write_jsonl(manifest, [clip(0, "a.mp4"), clip(1, "b.mp4"), clip(2, "c.mp4")])
    with pytest.raises(InputError, match=r"2 of 3 videos missing, the first is .*b\.mp4"):
        load_clips(manifest)


def test_bad_lines_are_named(tmp_path):
    manifest = tmp_path / "clips.jsonl"
    (tmp_path / "a.mp4").touch()
    good = clip(0, "a.mp4").model_dump_json()
    manifest.write_text(f"{good}\n{good[:-20]}\n")
    with pytest.raises(InputError, match=r"clips\.jsonl:2"):
        load_clips(manifest)
    manifest.write_text(f"{good}\n{good}\n")
    with pytest.raises(InputError, match="occurs twice"):
        load_clips(manifest)
    manifest.write_text("")
    with pytest.raises(InputError, match="no clips"):
        load_clips(manifest)
    with pytest.raises(InputError, match="no such manifest"):
        load_clips(tmp_path / "none.jsonl")


def test_a_manifest_of_an_older_version_says_so(tmp_path):
    manifest = tmp_path / "clips.jsonl"
    older = json.loads(clip(0, "a.mp4").model_dump_json()) | {"views": {"road": "a.mp4"}, "native_fps": 30.0}
    manifest.write_text(json.dumps(older) + "\n")
    with pytest.raises(InputError, match=r"clips\.jsonl: written by an older version; run .*prepare again"):
        load_clips(manifest)


def test_missing_sensor_files_are_named(tmp_path):
    (tmp_path / "a.mp4").touch()
    manifest = tmp_path / "clips.jsonl"
    sensors = DataFile(path="a.npz", content_hash="0")
    write_jsonl(manifest, [clip(0, "a.mp4").model_copy(update={"sensors": sensors})])
    with pytest.raises(InputError, match=r"1 of 1 sensor and truth files missing, the first is .*a\.npz"):
        load_clips(manifest)
    (tmp_path / "a.npz").touch()
    assert load_clips(manifest)[0].sensors == DataFile(path=str(tmp_path / "a.npz"), content_hash="0")


def test_a_replaced_video_is_named(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    manifest = tmp_path / "clips.jsonl"
    info = scan(path)
    write_jsonl(manifest, [make_clip(info.view("a.mp4"), end_s=2.0)])
    assert load_clips(manifest)[0].road.num_bytes == path.stat().st_size
    write_video(path, num_frames=31)
    with pytest.raises(InputError, match=r"1 of 1 videos replaced since it was written, .*a\.mp4; .*prepare again"):
        load_clips(manifest)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xef\xbb\xbf%s\n", None),
        (b"%s\n\n%s\xff\n", "clips.jsonl:3: not UTF-8 (byte 0xff)"),
        (b"\xff\xfe%s\n", "clips.jsonl: UTF-16"),
        (b"%s\n{\0}\n", "clips.jsonl:2: holds NUL bytes"),
        (b"[]\n", "clips.jsonl:1: not a valid Clip"),
        (b"[" * 100_000, "clips.jsonl:1: not a valid Clip"),
    ],
)
def test_a_manifest_in_another_encoding_or_form(tmp_path, content, said):
    (tmp_path / "a.mp4").touch()
    good = clip(0, "a.mp4").model_dump_json().encode()
    (tmp_path / "clips.jsonl").write_bytes(content.replace(b"%s", good))
    if said is None:
        assert len(load_clips(tmp_path / "clips.jsonl")) == 1
        return
    with pytest.raises(InputError) as refused:
        load_clips(tmp_path / "clips.jsonl")
    assert said in str(refused.value)


def test_a_manifest_that_is_a_folder_or_closed(ordinary_user):
    with pytest.raises(InputError, match="is a folder"):
        load_clips(ordinary_user)
    (ordinary_user / "clips.jsonl").touch(mode=0)
    with pytest.raises(InputError, match=r"clips\.jsonl: cannot be read \(Permission denied\)"):
        load_clips(ordinary_user / "clips.jsonl")
