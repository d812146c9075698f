import json
import subprocess
import sys
from pathlib import Path

import pytest

from autodrive.benchmarks.video import decode_benchmark, loader_benchmark, write_moving_video
from autodrive.video.preflight import scan


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moving_video(tmp_path_factory.mktemp("moving") / "a.mp4", duration_s=10, size=(64, 96))


def test_the_moving_video_passes_the_scan_and_moves(video: Path):
    info = scan(video)
    assert (info.num_frames, info.native_fps, info.height, info.width, info.codec) == (300, 30, 64, 96, "h264")
    assert video.stat().st_size > 300 * 300  # a still picture takes a few bytes a frame


def test_decoding_once_is_compared_with_decoding_windows(video: Path):
    result = json.loads(json.dumps(decode_benchmark(video, repeats=1)))
    assert result["windows"] == 2
    assert result["overlap"] == pytest.approx(1.2)
    pyav = result["decoders"]["pyav"]
    assert pyav["decode_once_vs_per_window_speedup"] == pyav["per_window_cpu_s"] / pyav["decode_once_cpu_s"]
    assert pyav["decode_once_share_of_overlap"] == pyav["decode_once_vs_per_window_speedup"] / result["overlap"]
    assert 0 < result["decode_only_cpu_s"] < pyav["per_window_cpu_s"]


def test_the_loader_is_measured_at_every_rate_codec_and_decoder(video: Path):
    result = json.loads(json.dumps(loader_benchmark(video, repeats=1)))
    for figures in result["decoders"].values():
        assert set(figures) == {"1_fps", "3_fps", "15_fps", "30_fps", "cache_bytes"}
        assert figures["cache_bytes"]["raw"] > 300 * 3 * 252 * 420 > figures["cache_bytes"]["jpeg"]
        assert figures["30_fps"]["frames_read"] == 360
        for codec in ("raw", "jpeg"):
            assert figures["30_fps"][codec]["warm_cache_vs_decoding_speedup"] > 0


def test_patches_cost_less_than_three_copies(repository: Path):
    # In a process of its own: one that has trained keeps freed memory, and a copy into that has no page faults.
    code = (
        "import json; from autodrive.benchmarks.video import patchify_benchmark as bench; print(json.dumps(bench(5)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["bytes"] == 180 * 3 * 252 * 420
    assert result["patchify_in_copies"] < 3
