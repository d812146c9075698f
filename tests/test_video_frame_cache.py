"""The frame cache against the decoders themselves: equal bytes, equal errors, whatever happens to its folder."""

import logging
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from frame_cache_workers import build, read_at_once
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from records import make_clip
from running import composed
from video_files import write_sound_only, write_video

from autodrive.errors import InputError
from autodrive.mixture.datamodule import ClipReader
from autodrive.schema import Views
from autodrive.video.container import UnusableVideo
from autodrive.video.decoder import DecodedFrames, DecordDecoder, PyAVDecoder, TorchcodecDecoder
from autodrive.video.frame_cache import DiskFrameCache, NoFrameCache
from autodrive.video.frame_codec import FrameCodec, JpegCodec, RawCodec
from autodrive.video.sampler import requested_timestamps

SIZE = (28, 56)
FPS, NUM_FRAMES = 30, 90
FRAME_BYTES = 3 * SIZE[0] * SIZE[1]
CACHE_LOG = "autodrive.video.frame_cache"


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


def make_cache(folder: Path, codec: FrameCodec | None = None, max_bytes: float = 1e9) -> DiskFrameCache:
    return DiskFrameCache(folder, codec or RawCodec(), max_bytes / 1e9)


def read(
    cache: DiskFrameCache | None, path: Path, requested_s=None, decoder=None, size=SIZE, content_hash=""
) -> DecodedFrames:
    """One read with (or without) a cache; by default of 2 s in the middle of the file at its own rate."""
    requested_s = requested_timestamps(0.5, 2.5, FPS, FPS) if requested_s is None else requested_s
    source = cache or NoFrameCache()
    return source.read(decoder or PyAVDecoder(), path, content_hash or path.name, requested_s, size)


def assert_same(left: DecodedFrames, right: DecodedFrames) -> None:
    assert torch.equal(left.frames_TCHW, right.frames_TCHW)
    assert torch.equal(left.timestamps_s, right.timestamps_s)
    assert left.frames_TCHW.dtype == right.frames_TCHW.dtype == torch.uint8
    assert left.timestamps_s.dtype == right.timestamps_s.dtype == torch.float64
    assert left.frames_TCHW.is_contiguous()


def entries(cache: DiskFrameCache) -> list[Path]:
    return sorted(cache.store.folder.glob("entries/*/*"))


def stored_bytes(cache: DiskFrameCache) -> int:
    return sum(path.stat().st_size for path in cache.store.folder.glob("entries/*/*/*"))


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
    requested_s = requested_timestamps(start_s, min(start_s + length_s, NUM_FRAMES / FPS), fps, FPS, phase)
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
        requested_s = requested_timestamps(start_s, end_s, fps, FPS)
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
        requested_s = requested_timestamps(start_s, end_s, fps, FPS, phase)
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
        requested_s = requested_timestamps(start_s, start_s + 1, 25, 25)
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


# ----- damaged entries


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "frames_flipped": lambda entry: flip(entry / "frames", 20 * FRAME_BYTES + 7),
    "frames_truncated": lambda entry: os.truncate(entry / "frames", 30 * FRAME_BYTES + 5),
    "frames_zeroed": lambda entry: (entry / "frames").write_bytes(bytes(NUM_FRAMES * FRAME_BYTES)),
    "frames_empty": lambda entry: os.truncate(entry / "frames", 0),
    "frames_missing": lambda entry: (entry / "frames").unlink(),
    "index_header_flipped": lambda entry: flip(entry / "index.npy", 30),
    "index_time_flipped": lambda entry: flip(entry / "index.npy", 128 + 24 * 20 + 6),
    "index_digest_flipped": lambda entry: flip(entry / "index.npy", -1),
    "index_truncated": lambda entry: os.truncate(entry / "index.npy", 700),
    "index_empty": lambda entry: os.truncate(entry / "index.npy", 0),
    "index_text": lambda entry: (entry / "index.npy").write_text("not an index\n" * 9),
    "index_pickle": lambda entry: (entry / "index.npy").write_bytes(pickle.dumps([1, 2, 3])),
    "index_missing": lambda entry: (entry / "index.npy").unlink(),
    "index_is_a_folder": lambda entry: ((entry / "index.npy").unlink(), (entry / "index.npy").mkdir()),
    "all_missing": shutil.rmtree,
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("codec", [RawCodec(), JpegCodec(90)], ids=["raw", "jpeg"])
def test_a_damaged_entry_is_noticed_and_built_again(video, tmp_path, caplog, kind, codec):
    cache = make_cache(tmp_path / "frames", codec)
    read(cache, video)
    good = read(cache, video)
    [entry] = entries(cache)
    if codec == JpegCodec(90) and kind in ("frames_flipped", "frames_truncated"):
        size = (entry / "frames").stat().st_size
        damage = {
            "frames_flipped": lambda e: flip(e / "frames", size // 2),
            "frames_truncated": lambda e: os.truncate(e / "frames", size // 2),
        }[kind]
    else:
        damage = DAMAGE[kind]
    damage(entry)
    with caplog.at_level(logging.WARNING, CACHE_LOG):
        assert_same(read(cache, video), good)
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == (0 if "missing" in kind else 1), told
        assert all(str(entry) in message and str(video) in message for message in told)
        assert_same(read(cache, video, np.arange(NUM_FRAMES) / FPS), read(cache, video, np.arange(NUM_FRAMES) / FPS))
        assert len(caplog.records) == len(told)
    assert entries(cache) == [entry]
    total = int((cache.store.folder / "total_bytes").read_text())
    assert total == stored_bytes(cache) * (2 if kind == "all_missing" else 1)  # until the next full scan


def test_an_entry_under_another_s_name_is_noticed(video, tmp_path, caplog):
    """Two sources of one shape: every checksum of frames is right, but the pictures are not."""
    other = write_video(tmp_path / "other.mp4", NUM_FRAMES, FPS, gop=7)
    cache = make_cache(tmp_path / "frames")
    read(cache, video)
    [first] = entries(cache)
    read(cache, other)
    [second] = set(entries(cache)) - {first}
    shutil.rmtree(first)
    shutil.copytree(second, first)
    assert_same(read(cache, video), read(None, video))
    assert "damaged" in caplog.text


# ----- the bound


def test_the_least_recently_used_sources_go_first(video, tmp_path):
    per_entry = NUM_FRAMES * FRAME_BYTES + (NUM_FRAMES + 1) * 24 + 200
    cache = make_cache(tmp_path / "frames", max_bytes=12 * per_entry)
    hashes = [f"source{number}" for number in range(13)]
    by_hash = {}
    for number, name in enumerate(hashes[:12]):
        before = set(entries(cache))
        read(cache, video, content_hash=name)
        [by_hash[name]] = set(entries(cache)) - before
        os.utime(by_hash[name] / "index.npy", (number, number))
    assert len(entries(cache)) == 12
    read(cache, video, content_hash=hashes[0])  # used again: the second is the oldest now
    read(cache, video, content_hash=hashes[12])
    left = set(entries(cache))
    assert by_hash[hashes[0]] in left
    assert {by_hash[name] for name in hashes[1:4]}.isdisjoint(left)  # down to nine tenths of the bound
    assert {by_hash[name] for name in hashes[4:12]} <= left
    assert len(left) == 10
    assert int((cache.store.folder / "total_bytes").read_text()) == stored_bytes(cache)
    for name in hashes:
        assert_same(read(cache, video, content_hash=name), read(None, video))
        assert stored_bytes(cache) <= 12 * per_entry


@pytest.mark.parametrize("note", ["", "x", "99999999999", None])
def test_a_wrong_running_total_is_counted_again(video, tmp_path, note):
    cache = make_cache(tmp_path / "frames")
    read(cache, video)
    total = cache.store.folder / "total_bytes"
    total.unlink() if note is None else total.write_text(note)
    read(cache, video, content_hash="another")
    assert len(entries(cache)) == 2
    assert int(total.read_text()) == stored_bytes(cache)


@pytest.mark.parametrize("max_gb", [0, -1])
def test_a_bound_that_holds_nothing_is_refused(tmp_path, max_gb):
    with pytest.raises(InputError, match=r"frame_cache\.max_gb"):
        DiskFrameCache(tmp_path, RawCodec(), max_gb)
    with pytest.raises(InputError, match="quality"):
        JpegCodec(0)


def test_a_full_disk_is_named_with_the_mend(video, tmp_path):
    """A limit on file sizes is what a test can fill; the system reports a full disk in the same way."""
    cache = make_cache(tmp_path / "frames")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 * FRAME_BYTES, hard))
    try:
        with pytest.raises(
            InputError, match=r"frames: the frame cache cannot be written \(File too large\).*frame_cache=none"
        ) as caught:
            read(cache, video)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert entries(cache) == list(cache.store.folder.glob("building/*")) == []
    assert_same(read(cache, video), read(None, video))


def test_a_folder_that_cannot_be_made_is_named(video, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/frames: the frame cache cannot be written"):
        read(make_cache(tmp_path / "file" / "frames"), video)


# ----- many processes


def test_two_processes_that_miss_the_same_entry_decode_it_once(tmp_path):
    path = write_video(tmp_path / "a.mp4", 600, FPS, size=(240, 320))
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=read_at_once, args=(tmp_path / "frames", path, barrier, results)) for _ in "ab"]
    for worker in workers:
        worker.start()
    outcomes = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert sum("stored 600 frames" in message for built, _ in outcomes for message in built) == 1
    assert {content for _, content in outcomes} == {read(None, path).frames_TCHW.numpy().tobytes()}
    assert len(entries(make_cache(tmp_path / "frames"))) == 1


def test_a_killed_build_leaves_no_entry_and_no_lock(tmp_path):
    path = write_video(tmp_path / "a.mp4", 1000, FPS, size=(240, 320))
    cache = make_cache(tmp_path / "frames")
    worker = multiprocessing.get_context("spawn").Process(target=build, args=(cache.store.folder, path))
    worker.start()
    deadline = time.monotonic() + 60
    while not any(file.stat().st_size for file in cache.store.folder.glob("building/*/frames")):
        assert worker.is_alive()
        assert time.monotonic() < deadline
    os.kill(worker.pid, signal.SIGKILL)  # type: ignore[arg-type]
    worker.join(60)
    assert entries(cache) == []
    assert len(list(cache.store.folder.glob("building/*"))) == 1
    began = time.monotonic()
    assert_same(read(cache, path), read(None, path))
    assert time.monotonic() - began < 20
    assert list(cache.store.folder.glob("building/*")) == []
    assert len(entries(cache)) == 1


def test_what_killed_builds_of_other_sources_left_is_removed_when_space_is_needed(video, tmp_path):
    cache = make_cache(tmp_path / "frames")
    read(cache, video)
    left = cache.store.folder / "building" / ("ab" * 16)
    left.mkdir(parents=True)
    (left / "frames").write_bytes(bytes(1000))
    (cache.store.folder / "total_bytes").unlink()
    read(cache, video, content_hash="another")
    assert not left.exists()
    assert len(entries(cache)) == 2


def test_a_cache_is_sent_to_workers_before_it_opens_anything(video, tmp_path):
    cache = pickle.loads(pickle.dumps(make_cache(tmp_path / "frames")))
    assert not (tmp_path / "frames").exists()
    assert_same(read(cache, video), read(None, video))
    assert_same(read(pickle.loads(pickle.dumps(cache)), video), read(None, video))


# ----- in the house


class FixedSize:
    """The part of a student's processor that a reader asks."""

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        return SIZE


@pytest.mark.parametrize("option", ["none", "raw", "jpeg"])
@pytest.mark.parametrize("verb", ["train", "eval", "predict"])
def test_every_verb_s_options_read_clips(video, tmp_path, option, verb):
    config = composed(verb, [f"frame_cache={option}", f"paths.data_dir={tmp_path}"])
    cache = instantiate(config.frame_cache)
    clip = make_clip(views=Views(road=str(video)), native_fps=FPS, end_s=2.0)
    reader = ClipReader(PyAVDecoder(), FixedSize(), 15, cache=cache)  # type: ignore[arg-type]
    exact = ClipReader(PyAVDecoder(), FixedSize(), 15).read(clip, 0.3)  # type: ignore[arg-type]
    decoded = reader.read(clip, 0.3)
    assert torch.equal(decoded.timestamps_s, exact.timestamps_s)
    assert torch.equal(decoded.frames_TCHW, exact.frames_TCHW) == (option != "jpeg")
    assert (tmp_path / "frames" / "entries").is_dir() == (option != "none")
