import contextlib
import sys
import time
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter
from video_files import numbered_picture, read_number, write_video

from autodrive.errors import InputError
from autodrive.video.container import UnusableVideo, presentation_times
from autodrive.video.decoder import DecordDecoder, PyAVDecoder, TorchcodecDecoder
from autodrive.video.frame_grid import FrameGrid
from autodrive.video.pixels import to_rgb
from autodrive.video.preflight import scan
from autodrive.video.sampler import choose_frames

SIZE = (48, 80)
CLIPS = [
    "collision/ccd_crash_000431.mp4",
    "collision/observed_intersection_crash.mp4",
    "normal/cosmos_reason1_sample.mp4",
    "normal/udacity_solidWhiteRight.mp4",
]


@pytest.fixture(params=[PyAVDecoder, DecordDecoder, TorchcodecDecoder])
def decoder(request, tmp_path):
    decoder = request.param()
    probe = write_video(tmp_path / "probe.mp4", num_frames=2)
    try:
        decoder.read(probe, np.array([0.0]), SIZE)
    except UnusableVideo:
        raise
    except InputError as error:
        pytest.skip(str(error))
    return decoder


def numbers(frames):
    return [read_number(frame.numpy()) for frame in frames.frames_TCHW]


@pytest.mark.parametrize("fps", [1, 4, 7.5, 10, 15])
def test_every_decoder_gives_the_frames_on_screen_and_their_times(decoder, tmp_path, fps):
    path = write_video(tmp_path / "a.mp4", num_frames=90, fps=15, gop=20)
    for start_s, end_s in ((0.0, 6.0), (1.37, 5.9)):
        requested = FrameGrid(fps).timestamps(start_s, end_s, 15.0)
        frames = decoder.read(path, requested, SIZE)
        expected = choose_frames(np.arange(90) / 15, requested)
        assert numbers(frames) == expected.tolist()
        np.testing.assert_array_equal(frames.timestamps_s.numpy(), presentation_times(path)[expected])
        assert frames.frames_TCHW.dtype == torch.uint8
        assert frames.timestamps_s.dtype == torch.float64


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("other", [DecordDecoder(), TorchcodecDecoder()], ids=["decord", "torchcodec"])
def test_decoders_agree_on_real_clips(real_videos, name, other):
    path = real_videos / name
    info = scan(path)
    for fps in (1, 4, 7.5, 10, 15):
        if fps > 1.05 * info.native_fps:
            continue
        requested = FrameGrid(fps).timestamps(0.6, min(info.duration_s, 3.1), info.native_fps)
        try:
            theirs = other.read(path, requested, (56, 112))
        except UnusableVideo:
            raise
        except InputError as error:
            pytest.skip(str(error))
        ours = PyAVDecoder().read(path, requested, (56, 112))
        assert torch.equal(ours.timestamps_s, theirs.timestamps_s)
        difference = (ours.frames_TCHW.float() - theirs.frames_TCHW.float()).abs().mean(dim=(1, 2, 3))
        assert difference.max() < 4  # scalers differ a little; a neighbouring frame of these clips differs more


def test_native_rate_of_a_real_clip_gives_every_frame_at_its_true_time(real_videos):
    path = real_videos / "collision" / "observed_intersection_crash.mp4"
    requested = FrameGrid(30).timestamps(0, 6, scan(path).native_fps)
    frames = PyAVDecoder().read(path, requested, (36, 64))
    np.testing.assert_allclose(frames.timestamps_s.numpy(), np.arange(180) * 1001 / 30000, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "libx264")]
)
@pytest.mark.parametrize("gop", [5, 1000])
def test_a_late_window_is_the_same_as_decoding_from_the_start(tmp_path, name, codec, gop):
    path = write_video(tmp_path / name, num_frames=150, fps=25, codec=codec, gop=gop)
    whole = PyAVDecoder().read(path, FrameGrid(25).timestamps(0, 6, 25), SIZE)
    assert numbers(whole) == list(range(150))
    for start_s in (1.5, 3.02, 5.6):
        requested = FrameGrid(12).timestamps(start_s, 6.0, 25)
        late = PyAVDecoder().read(path, requested, SIZE)
        chosen = choose_frames(whole.timestamps_s.numpy(), requested)
        assert torch.equal(late.timestamps_s, whole.timestamps_s[chosen])
        assert numbers(late) == chosen.tolist()


def test_times_start_at_the_first_frame_of_a_file_that_starts_late(tmp_path):
    path = write_video(tmp_path / "late.mkv", num_frames=40, fps=10, pts=range(70, 110))
    frames = PyAVDecoder().read(path, np.array([0.0, 3.05]), SIZE)
    assert frames.timestamps_s.tolist() == [0.0, 3.0]
    assert numbers(frames) == [0, 30]


def test_a_frame_asked_for_twice_comes_twice(decoder, tmp_path):
    path = write_video(tmp_path / "a.mp4", fps=10)
    frames = decoder.read(path, np.array([0.0, 0.31, 0.35, 0.52]), SIZE)
    assert numbers(frames) == [0, 3, 3, 5]


def test_resizing_is_uint8_bicubic_with_antialiasing(decoder, tmp_path):
    path = write_video(tmp_path / "a.mp4", size=(120, 200), num_frames=8)
    requested = np.arange(8) / 10
    full = decoder.read(path, requested, (120, 200)).frames_TCHW
    small = decoder.read(path, requested, (56, 84)).frames_TCHW
    expected = torch.nn.functional.interpolate(full, size=(56, 84), mode="bicubic", antialias=True)
    assert (small.int() - expected.int()).abs().max() <= 1
    assert small.is_contiguous()


def test_stacked_conversion_gives_the_same_bytes_as_one_frame_at_a_time(real_videos):
    with av.open(str(real_videos / "collision" / "ccd_crash_000838.mp4")) as container:
        frames = [frame for frame, _ in zip(container.decode(video=0), range(5), strict=False)]
    each = np.stack([VideoReformatter().reformat(frame, format="rgb24").to_ndarray() for frame in frames])
    np.testing.assert_array_equal(to_rgb(frames), each)


@pytest.mark.parametrize(("colorspace", "matrix"), [(1, (0.2126, 0.0722)), (5, (0.299, 0.114)), (2, (0.299, 0.114))])
@pytest.mark.parametrize("color_range", [1, 2])
def test_colours_follow_the_tags_of_the_file(colorspace, matrix, color_range):
    kr, kb = matrix
    rgb = np.array([200.0, 40.0, 90.0])
    luma = kr * rgb[0] + (1 - kr - kb) * rgb[1] + kb * rgb[2]
    cb, cr = (rgb[2] - luma) / (2 * (1 - kb)), (rgb[0] - luma) / (2 * (1 - kr))
    planes = (
        (luma, 128 + cb, 128 + cr)
        if color_range == 2
        else (16 + luma * 219 / 255, 128 + cb * 224 / 255, 128 + cr * 224 / 255)
    )
    frame = av.VideoFrame(32, 16, "yuv420p")
    for plane, value in zip(frame.planes, planes, strict=True):
        plane.update(bytes([round(value)]) * plane.buffer_size)
    frame.colorspace, frame.color_range = colorspace, color_range
    np.testing.assert_allclose(to_rgb([frame, frame]).reshape(-1, 3), np.tile(rgb, (1024, 1)), atol=3)


def test_a_request_after_the_end_is_refused_not_filled(decoder, tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=30, fps=10)
    decoder.read(path, np.array([2.99]), SIZE)
    with pytest.raises(UnusableVideo, match="before the requested"):
        decoder.read(path, np.array([0.0, 3.5]), SIZE)


def test_missing_file_and_bad_requests(decoder, tmp_path):
    with pytest.raises(UnusableVideo, match="missing"):
        decoder.read(tmp_path / "none.mp4", np.array([0.0]), SIZE)
    path = write_video(tmp_path / "a.mp4")
    for bad in (np.array([]), np.array([1.0, 0.5])):
        with pytest.raises(InputError, match="ascending"):
            decoder.read(path, bad, SIZE)


@pytest.mark.parametrize(
    ("module", "missing"), [("decord", DecordDecoder()), ("torchcodec.decoders", TorchcodecDecoder())]
)
def test_a_decoder_that_is_not_installed_is_named_with_the_fix(monkeypatch, tmp_path, module, missing):
    monkeypatch.setitem(sys.modules, module, None)
    path = write_video(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"not installed; pip install .*decoder=pyav"):
        missing.read(path, np.array([0.0]), SIZE)


def test_damage_in_the_middle_never_hangs_and_never_invents_times(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=60, fps=10, faststart=True)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 4] = bytes(len(data) // 4)
    path.write_bytes(data)
    requested = FrameGrid(10).timestamps(0, 6, 10)
    begin = time.monotonic()
    with contextlib.suppress(UnusableVideo):
        frames = PyAVDecoder().read(path, requested, SIZE)
        assert set(frames.timestamps_s.tolist()) <= set(presentation_times(path).tolist())
    assert time.monotonic() - begin < 5


def test_the_training_size_decodes_fast_enough(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=120, fps=30, size=(56, 112), gop=30)
    requested = FrameGrid(15).timestamps(0, 4, 30)
    decoder = PyAVDecoder()
    decoder.read(path, requested, (56, 112))
    begin = time.process_time()
    for _ in range(10):
        decoder.read(path, requested, (56, 112))
    frames_per_cpu_s = 1200 / (time.process_time() - begin)
    assert frames_per_cpu_s > 5000


def test_fractional_rates_have_exact_times(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=60, fps=Fraction(30000, 1001))
    np.testing.assert_allclose(presentation_times(path), np.arange(60) * 1001 / 30000, atol=1e-12)
    assert read_number(numbered_picture(733).transpose(2, 0, 1)) == 733
