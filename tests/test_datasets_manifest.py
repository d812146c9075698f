import json

import pytest
from records import make_clip, make_view

from autodrive.datasets.manifest import load_clips
from autodrive.errors import InputError
from autodrive.schema import DataFile, write_jsonl


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
    with pytest.raises(InputError, match=r"2 of 3 videos are missing, the first is .*b\.mp4"):
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
    with pytest.raises(InputError, match=r"1 of 1 sensor and truth files are missing, the first is .*a\.npz"):
        load_clips(manifest)
    (tmp_path / "a.npz").touch()
    assert load_clips(manifest)[0].sensors == DataFile(path=str(tmp_path / "a.npz"), content_hash="0")
