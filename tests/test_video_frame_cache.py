"""The frame cache against the decoders themselves: equal bytes, equal errors, whatever happens to its folder."""

import pickle
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from frame_cache_reads import FPS, FRAME_BYTES, NUM_FRAMES, SIZE, assert_same, entries, make_cache, read, stored_bytes
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from records import make_clip, make_view
from running import composed
from video_files import write_sound_only, write_video

from autodrive.errors import InputError
from autodrive.mixture.clip_batches import ClipReader
from autodrive.video.container import UnusableVideo
from autodrive.video.decoder import DecodedFrames, DecordDecoder, PyAVDecoder, TorchcodecDecoder
from autodrive.video.frame_cache import DiskFrameCache
from autodrive.video.frame_codec import JpegCodec, RawCodec
from autodrive.video.frame_grid import FrameGrid


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", NUM_FRAMES, FPS)


@pytest.fixture(
    scope="module", params=[PyAVDecoder(), DecordDecoder(), TorchcodecDecoder()], ids=lambda d: type(d).__name__
)
def decoder(request, video):
    try:
        request.param.read(video, np.array([0.0]), SIZE)
    except UnusableVideo:
        raise
    except InputError as error:
        pytest.skip(str(error))
    return request.param


# ----- the same frames


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> DiskFrameCache:
    return make_cache(tmp_path_factory.mktemp("cache"))


@settings(deadline=None, max_examples=40)
@given(
    start_s=st.floats(0, 2.8),
    length_s=st.floats(0.05, 3),
    fps=st.sampled_from([1, 3, 7.5, 15, 29, 30, 31]),
    phase=st.floats(0, 0.999),
)
def test_every_window_rate_and_phase_has_the_decoder_s_bytes(
    video, decoder, shared_cache, start_s, length_s, fps, phase
):
    requested_s = FrameGrid(fps).timestamps(start_s, min(start_s + length_s, NUM_FRAMES / FPS), FPS, phase)
    assert_same(read(shared_cache, video, requested_s, decoder), read(None, video, requested_s, decoder))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("late.mkv", {"pts": range(70, 160)}),
        ("a.ts", {"gop": 1000}),
        ("a.avi", {"codec": "mpeg4", "gop": 5}),
        ("ntsc.mp4", {"fps": Fraction(30000, 1001), "audio": True}),
        ("dropped.mp4", {"pts": [n + n // 20 for n in range(90)], "time_base": Fraction(1, 30)}),
        ("one.mp4", {"num_frames": 1}),
    ],
)
@pytest.mark.parametrize("size", [SIZE, (48, 80)], ids=["resized", "as_it_is"])
def test_other_files_have_the_decoder_s_bytes(tmp_path, name, how, size):
    path = write_video(tmp_path / name, **({"num_frames": NUM_FRAMES, "fps": FPS} | how))
    cache = make_cache(tmp_path / "frames")
    for start_s, end_s, fps in ((0, 3, 30), (1.37, 2.9, 30), (0, 3, 4), (2.95, 3, 30)):
        requested_s = FrameGrid(fps).timestamps(start_s, end_s, FPS)
        if name == "one.mp4":
            requested_s = requested_s[:1] * 0
        assert_same(read(cache, path, requested_s, size=size), read(None, path, requested_s, size=size))
    assert len(entries(cache)) == 1


def test_a_source_is_decoded_once_for_all_windows_rates_and_phases(video, decoder, tmp_path):
    """The file's content is taken away (not its name and length): whatever is decoded later would fail."""
    path = Path(shutil.copy(video, tmp_path))
    cache = make_cache(tmp_path / "frames")
    read(cache, path, np.array([0.4]), decoder)
    path.write_bytes(bytes(path.stat().st_size))
    for start_s, end_s, fps, phase in ((0, 3, 30, 0), (1, 3, 4, 0.7), (2.9, 3, 15, 0.2)):
        requested_s = FrameGrid(fps).timestamps(start_s, end_s, FPS, phase)
        assert_same(read(cache, path, requested_s, decoder), read(None, video, requested_s, decoder))
    with pytest.raises(UnusableVideo):
        read(None, path, decoder=decoder)


def test_content_size_decoder_and_codec_each_have_their_own_entry(video, tmp_path):
    cache = make_cache(tmp_path / "frames")
    read(cache, video)
    read(cache, Path(shutil.copy(video, tmp_path / "b.mp4")), content_hash=video.name)  # the same content elsewhere
    assert len(entries(cache)) == 1
    read(cache, video, content_hash="other")
    read(cache, video, size=(56, 28))
    read(cache, video, decoder=DecordDecoder())
    read(make_cache(tmp_path / "frames", JpegCodec(90)), video)
    read(make_cache(tmp_path / "frames", JpegCodec(80)), video)
    assert len(entries(cache)) == 6


def test_jpeg_is_close_and_small_and_closer_at_a_higher_quality(tmp_path):
    path = write_noisy_video(tmp_path / "noisy.mp4")
    exact = read(None, path, size=(56, 112))
    raw = make_cache(tmp_path / "raw")
    read(raw, path, size=(56, 112))
    ratios_db, sizes = [], []
    for quality in (60, 90, 95):
        cache = make_cache(tmp_path / str(quality), JpegCodec(quality))
        read(cache, path, size=(56, 112))
        stored = read(cache, path, size=(56, 112))
        assert torch.equal(stored.timestamps_s, exact.timestamps_s)
        error = (stored.frames_TCHW.double() - exact.frames_TCHW.double()).square().mean()
        ratios_db.append(float(10 * torch.log10(255**2 / error)))
        sizes.append(stored_bytes(cache))
    assert ratios_db == sorted(ratios_db)
    assert ratios_db[1] > 34  # noise of this strength is the worst case
    assert sizes == sorted(sizes)
    assert 3 * sizes[1] < stored_bytes(raw)


def write_noisy_video(path: Path) -> Path:
    """A smooth texture that moves, with a little noise: what JPEG is made for, unlike stripes."""
    from autodrive.benchmarks.video import write_moving_video

    return write_moving_video(path, duration_s=3, size=(120, 240))


# ----- the same errors


@pytest.mark.parametrize("state", ["missing", "empty", "text", "truncated", "sound", "no_index"])
def test_a_file_that_cannot_be_used_raises_what_it_raises_without_a_cache(video, decoder, tmp_path, state):
    path = tmp_path / "a.mp4"
    whole = video.read_bytes()
    contents = {"empty": b"", "text": b"#EXTM3U\n", "truncated": whole[: len(whole) // 2], "no_index": whole[:2000]}
    if state == "sound":
        write_sound_only(path)
    elif state != "missing":
        path.write_bytes(contents[state])
    with pytest.raises(UnusableVideo) as plain:
        read(None, path, decoder=decoder)
    cache = make_cache(tmp_path / "frames")
    for _ in range(2):
        with pytest.raises(UnusableVideo) as cached:
            read(cache, path, decoder=decoder)
        assert (str(cached.value), cached.value.reason) == (str(plain.value), plain.value.reason)
    assert entries(cache) == []


@pytest.mark.parametrize("state", ["missing", "truncated"])
def test_a_file_that_is_lost_after_it_was_stored_is_missed(video, tmp_path, state):
    path = Path(shutil.copy(video, tmp_path))
    cache = make_cache(tmp_path / "frames")
    read(cache, path)
    if state == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UnusableVideo) as plain:
        read(None, path)
    with pytest.raises(UnusableVideo) as cached:
        read(cache, path)
    assert str(cached.value) == str(plain.value)


def test_requests_that_no_decoder_takes_are_refused_alike(video, decoder, tmp_path):
    cache = make_cache(tmp_path / "frames")
    read(cache, video, decoder=decoder)
    for bad in (np.array([]), np.array([1.0, 0.5]), np.array([0.0, 3.5]), np.array([9.0])):
        with pytest.raises(InputError) as plain:
            read(None, video, bad, decoder)
        with pytest.raises(type(plain.value)) as cached:
            read(cache, video, bad, decoder)
        assert str(cached.value) == str(plain.value)
    for late in (2.99, 3.0, 3.005, 3.015):
        requested_s = np.array([0.0, late])
        assert_same(read(cache, video, requested_s, decoder), read(None, video, requested_s, decoder))


def test_damage_that_only_some_windows_touch_changes_nothing(tmp_path):
    path = write_video(tmp_path / "a.mp4", 150, 25, faststart=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    cache = make_cache(tmp_path / "frames")
    for start_s in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0):
        requested_s = FrameGrid(25).timestamps(start_s, start_s + 1, 25)
        outcomes = [outcome(lambda c=c, r=requested_s: read(c, path, r)) for c in (None, cache)]
        assert outcomes[0] == outcomes[1]
    assert entries(cache) == []


def outcome(call: Callable[[], DecodedFrames]) -> object:
    try:
        decoded = call()
    except UnusableVideo as error:
        return str(error)
    return decoded.frames_TCHW.numpy().tobytes(), decoded.timestamps_s.tolist()


@pytest.mark.parametrize("codec", [RawCodec(), JpegCodec(95)], ids=["raw", "jpeg"])
def test_a_source_that_takes_more_than_a_tenth_is_decoded_as_without_a_cache(video, tmp_path, codec):
    needed = NUM_FRAMES * FRAME_BYTES * 10
    small, large = (make_cache(tmp_path / str(share), codec, share * needed) for share in (0.02, 1.01))
    for _ in range(2):
        assert_same(read(small, video), read(None, video))
    assert entries(small) == list(small.store.folder.glob("building/*")) == []
    read(large, video)
    assert len(entries(large)) == 1
    just_too_small = make_cache(tmp_path / "edge", RawCodec(), 0.99 * needed)
    read(just_too_small, video)
    assert entries(just_too_small) == []


# ----- in the house


def test_a_cache_is_sent_to_workers_before_it_opens_anything(video, tmp_path):
    cache = pickle.loads(pickle.dumps(make_cache(tmp_path / "frames")))
    assert not (tmp_path / "frames").exists()
    assert_same(read(cache, video), read(None, video))
    assert_same(read(pickle.loads(pickle.dumps(cache)), video), read(None, video))


class FixedSize:
    """The part of a student's processor that a reader asks."""

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        return SIZE


@pytest.mark.parametrize("option", ["none", "raw", "jpeg"])
@pytest.mark.parametrize("verb", ["train", "eval", "predict"])
def test_every_verb_s_options_read_clips(video, tmp_path, option, verb):
    config = composed(verb, [f"frame_cache={option}", f"paths.data_dir={tmp_path}"])
    cache = instantiate(config.frame_cache)
    clip = make_clip(make_view(video, native_fps=FPS), end_s=2.0)
    reader = ClipReader(PyAVDecoder(), FixedSize(), FrameGrid(15), cache=cache)  # type: ignore[arg-type]
    exact = ClipReader(PyAVDecoder(), FixedSize(), FrameGrid(15)).read(clip, 0.3).frames  # type: ignore[arg-type]
    decoded = reader.read(clip, 0.3).frames
    assert torch.equal(decoded.timestamps_s, exact.timestamps_s)
    assert torch.equal(decoded.frames_TCHW, exact.frames_TCHW) == (option != "jpeg")
    assert (tmp_path / "frames" / "entries").is_dir() == (option != "none")
