"""Do loader workers stay small and keep going? Reads many clips through the real loader and watches memory.

python experiments/soak.py --clips 20000

Small videos are encoded into a temporary folder. The raw frame cache holds less than they need, so that workers read,
build and evict all the time. Prints the workers' resident memory over the clips read, and whether it is flat: whether
the largest worker's mean over the last quarter exceeds that over the second quarter by less than MAX_GROWTH_MB. Ends
with exit code 1 where it is not.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from autodrive.benchmarks.video import write_moving_video
from autodrive.config import register
from autodrive.mixture.clip_batches import (
    AskedClip,
    Batching,
    BranchWriter,
    ClipReader,
    QuestionSamples,
    question_loader,
)
from autodrive.schema import ROAD, Clip, Question
from autodrive.students.resolution import Resolution
from autodrive.video.decoder import PyAVDecoder
from autodrive.video.frame_cache import DiskFrameCache
from autodrive.video.frame_codec import RawCodec
from autodrive.video.frame_grid import FrameGrid
from autodrive.video.preflight import scan

CONF = Path(__file__).resolve().parents[1] / "conf"
NUM_VIDEOS, VIDEO_S, WINDOW_S, FPS = 60, 4.0, 2.0, 15
SIZE = (56, 112)
# Of what all videos need; the rest has to be evicted and decoded again.
CACHE_SHARE = 0.6
BATCH_SIZE, TOKENS_PER_ROW = 8, 8192
MAX_GROWTH_MB = 10.0
# glibc raises this bound by itself and then keeps freed tensors: workers gain 100 MB within their first 500 clips, with
# or without a cache, and then no more. Held at its first value, what grows is what is not freed.
MALLOC_BOUND = {"MALLOC_MMAP_THRESHOLD_": "131072"}


@dataclass
class Memory:
    """Resident memory of the loader's workers while they read.

    Attributes:
        clips_read: at each look.
        worker_mb: one row of megabytes (10**6 bytes, without pages of files) for each look, one column per worker.
    """

    clips_read: list[int] = field(default_factory=list)
    worker_mb: list[list[float]] = field(default_factory=list)

    def look(self, clips_read: int) -> None:
        """Measure now."""
        workers = sorted(multiprocessing.active_children(), key=lambda worker: worker.pid or 0)
        self.clips_read.append(clips_read)
        self.worker_mb.append([_own_mb(worker.pid) for worker in workers if worker.pid])

    def growth_mb(self) -> float:
        """How much the fastest growing worker gained from the second quarter of the looks to the last one."""
        rows = np.array(self.worker_mb)
        quarter = max(1, len(rows) // 4)
        return float((rows[-quarter:].mean(axis=0) - rows[quarter : 2 * quarter].mean(axis=0)).max())


def _own_mb(pid: int) -> float:
    """Resident pages that are not those of a file (Linux), so that libraries and page cache do not count."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024e-6
    return 0.0


def encode_videos(folder: Path, num_videos: int) -> list[Clip]:
    """Small videos and all their windows of 2 s as clips without labels."""
    clips = []
    for number in range(num_videos):
        path = write_moving_video(folder / f"{number}.mp4", VIDEO_S, 30, SIZE, seed=number)
        info = scan(path)
        for start_s in np.arange(0, VIDEO_S - WINDOW_S + 0.1, 0.5):
            clip = Clip(
                id=f"{number}#{start_s}",
                dataset="soak",
                source_video_id=str(number),
                views={ROAD: info.view(str(path))},
                start_s=float(start_s),
                end_s=float(start_s + WINDOW_S),
            )
            clips.append(clip)
    return clips


def build_loader(folder: Path, num_videos: int, clips: Sequence[Clip], num_workers: int) -> DataLoader:
    """The tiny student's loader, which asks each clip for its class, with a cache that is too small for the videos."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        book, labels = (instantiate(compose("train")[key]) for key in ("prompts", "labels"))
    spec = instantiate(OmegaConf.load(CONF / "student" / "tiny_qwen2_5_vl.yaml"))
    writer = BranchWriter(book, labels)
    student = spec.build([book.system, "What happens?"], Resolution(8, 8), 0)
    needed = num_videos * VIDEO_S * 30 * 3 * SIZE[0] * SIZE[1]
    cache = DiskFrameCache(folder / "frames", RawCodec(), max_gb=CACHE_SHARE * needed / 1e9)
    reader = ClipReader(PyAVDecoder(), student.processor, FrameGrid(FPS), cache=cache)
    question = Question(task=book.headline, question="What happens?", options=labels.names)
    asked = [AskedClip(clip, {"q": question}) for clip in clips]
    samples = QuestionSamples(asked, reader.shown, writer, ("direct",))
    return question_loader(samples, reader.processor, Batching(BATCH_SIZE, TOKENS_PER_ROW, num_workers))


def soak(num_clips: int, num_workers: int, num_videos: int, seed: int = 0) -> Memory:
    """Read clips in random order and look at the workers' memory a hundred times."""
    memory = Memory()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clips = encode_videos(folder, num_videos)
        random = np.random.default_rng(seed)
        read = [clips[i] for i in random.integers(0, len(clips), num_clips)]
        loader = build_loader(folder, num_videos, read, num_workers)
        every = max(1, num_clips // BATCH_SIZE // 100)
        began = time.monotonic()
        for number, rows in enumerate(loader, 1):
            assert all(row.num_tokens > 0 for row in rows)
            if number % every == 0:
                memory.look(number * BATCH_SIZE)
        seconds = time.monotonic() - began
        stored = sum(path.stat().st_size for path in folder.rglob("frames/entries/*/*/*"))
        print(f"{num_clips} clips in {seconds:.0f} s, {num_workers} workers; {stored / 1e6:.1f} MB kept")
    return memory


def main() -> int:
    """Soak and print; the exit code."""
    parser = argparse.ArgumentParser(description="Reads many clips through the real loader and watches memory.")
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--videos", type=int, default=NUM_VIDEOS)
    arguments = parser.parse_args()
    os.environ.update(MALLOC_BOUND)  # read by the workers when they start
    memory = soak(arguments.clips, arguments.workers, arguments.videos)
    for clips_read, row in list(zip(memory.clips_read, memory.worker_mb, strict=True))[::10]:
        print(f"{clips_read:8d} clips  " + "  ".join(f"{mb:7.1f} MB" for mb in row))
    growth_mb = memory.growth_mb()
    flat = growth_mb < MAX_GROWTH_MB
    print(f"{'flat' if flat else 'NOT flat'}: {growth_mb:+.1f} MB from the second quarter to the last")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
