"""The frame cache's folder: what damage, a full disk, other processes and kills do to it."""

import logging
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from frame_cache_reads import (
    CACHE_LOG,
    FPS,
    FRAME_BYTES,
    NUM_FRAMES,
    assert_same,
    build,
    entries,
    make_cache,
    read,
    read_at_once,
    stored_bytes,
)
from video_files import write_video

from autodrive.errors import InputError
from autodrive.video.frame_codec import JpegCodec, RawCodec


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", NUM_FRAMES, FPS)


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


def test_a_full_disk_is_named_with_the_fix(video, tmp_path):
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
