import hashlib
import struct
from fractions import Fraction

import numpy as np
import pytest
from video_files import write_sound_only, write_video

from autodrive.video.container import UnusableVideo
from autodrive.video.preflight import scan

REAL = {
    "collision/ccd_crash_000431.mp4": (1280, 720, 10.0, 50, 5.0, "mpeg4"),
    "collision/ccd_crash_000838.mp4": (1280, 720, 10.0, 50, 5.0, "mpeg4"),
    "collision/observed_intersection_crash.mp4": (640, 360, 29.97003, 270, 9.009, "h264"),
    "normal/ccd_normal_000002.mp4": (1280, 720, 10.0, 50, 5.0, "mpeg4"),
    "normal/cosmos_reason1_sample.mp4": (1008, 560, 4.0, 10, 2.5, "h264"),
    "normal/udacity_solidWhiteRight.mp4": (960, 540, 25.0, 221, 8.84, "h264"),
}


def refusal(path):
    with pytest.raises(UnusableVideo) as error:
        scan(path)
    assert "\n" not in str(error.value)
    return error.value.reason


@pytest.mark.parametrize("name", REAL)
def test_real_clips_are_measured_as_their_source_page_says(real_videos, name):
    info = scan(real_videos / name)
    width, height, fps, num_frames, duration_s, codec = REAL[name]
    assert (info.width, info.height, info.num_frames, info.codec) == (width, height, num_frames, codec)
    assert info.native_fps == pytest.approx(fps)
    assert info.duration_s == pytest.approx(duration_s)
    assert info.content_hash == hashlib.sha256((real_videos / name).read_bytes()).hexdigest()[:32]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4"), ("a.mp4", "mpeg4")]
)
def test_other_containers_pass(tmp_path, name, codec):
    info = scan(write_video(tmp_path / name, num_frames=75, fps=25, codec=codec, gop=12))
    assert (info.num_frames, info.native_fps) == (75, pytest.approx(25))


def test_a_track_of_sound_changes_nothing(tmp_path):
    info = scan(write_video(tmp_path / "a.mp4", num_frames=30, fps=10, audio=True))
    assert (info.num_frames, info.duration_s) == (30, pytest.approx(3.0))


@pytest.mark.parametrize("faststart", [False, True])
@pytest.mark.parametrize("share", [0.15, 0.5, 0.9, 0.995])
def test_mp4_cut_short_is_truncated(tmp_path, faststart, share):
    path = write_video(tmp_path / "a.mp4", num_frames=200, fps=10, faststart=faststart)
    scan(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert refusal(path) == "truncated"


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.avi", "mpeg4")])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_other_containers_cut_short_are_truncated(tmp_path, name, codec, share):
    path = write_video(tmp_path / name, num_frames=200, fps=10, codec=codec)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert refusal(path) == "truncated"


def test_end_overwritten_with_zeros_is_truncated(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=100, fps=10, faststart=True)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert refusal(path) == "truncated"


def test_empty_file(tmp_path):
    (tmp_path / "a.mp4").touch()
    assert refusal(tmp_path / "a.mp4") == "zero_byte"


def test_missing_file(tmp_path):
    assert refusal(tmp_path / "a.mp4") == "missing"
    assert refusal(tmp_path) == "missing"


@pytest.mark.parametrize(
    "content", [b"these are words, not pictures\n" * 50, bytes(5000), b"x", b"\x89PNG\r\n\x1a\n" + bytes(99)]
)
def test_other_content_renamed_to_mp4(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    assert refusal(tmp_path / "a.mp4") == "not_a_video"


def test_a_playlist_renamed_to_mp4_opens_nothing_else(tmp_path):
    good = write_video(tmp_path / "good.ts")
    for number, text in enumerate(
        (
            f"ffconcat version 1.0\nfile '{good}'\n",
            f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{good}\n#EXT-X-ENDLIST\n",
        )
    ):
        path = tmp_path / f"{number}.mp4"
        path.write_text(text)
        assert refusal(path) == "not_a_video"


def test_sound_alone(tmp_path):
    assert refusal(write_sound_only(tmp_path / "a.mp4")) == "no_video_stream"


TICK = Fraction(1, 1000)


@pytest.mark.parametrize(
    "steps_ms",
    [
        [50] * 30 + [100] * 30,
        [33, 100] * 30,
        [100] * 30 + [2000] + [100] * 30,
        np.random.default_rng(0).integers(20, 200, 60).tolist(),
    ],
    ids=["rate changes", "alternating", "one long gap", "random"],
)
def test_variable_frame_rate(tmp_path, steps_ms):
    pts = np.concatenate([[0], np.cumsum(steps_ms)]).tolist()
    path = write_video(tmp_path / "a.mp4", num_frames=len(pts), pts=pts, time_base=TICK)
    assert refusal(path) == "variable_frame_rate"


def test_jitter_and_single_dropped_frames_of_a_real_camera_pass(tmp_path):
    kept = [k for k in range(120) if k % 26 != 25]
    jitter = np.random.default_rng(0).integers(-3, 4, len(kept))
    pts = [0] + [round(1000 * k / 30) + int(j) for k, j in zip(kept[1:], jitter[1:], strict=True)]
    info = scan(write_video(tmp_path / "a.mp4", num_frames=len(pts), pts=pts, time_base=TICK))
    assert info.native_fps == pytest.approx((len(pts) - 1) / (pts[-1] / 1000), rel=1e-6)


@pytest.mark.parametrize("fps", [Fraction(1, 5), 1000])
def test_absurd_frame_rates(tmp_path, fps):
    assert refusal(write_video(tmp_path / "a.mp4", fps=fps)) == "absurd_fps"


def test_a_single_frame(tmp_path):
    assert refusal(write_video(tmp_path / "a.mp4", num_frames=1)) == "single_frame"


@pytest.mark.parametrize("degrees", [90, 180])
def test_rotated(tmp_path, degrees):
    assert refusal(write_video(tmp_path / "a.mp4", rotation=degrees)) == "rotated"


def test_rotation_written_into_the_track_header(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes of fields before the matrix
    assert struct.unpack_from(">i", data, matrix)[0] == 0x10000
    struct.pack_into(">9i", data, matrix, 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    path.write_bytes(data)
    assert refusal(path) == "rotated"
