"""Do the facts in a student's traces fit the clip that it saw, or any clip of that class?

    python experiments/trace_facts.py data/synthetic-<hash>/clips.jsonl outputs/train/<run> [<run> …]

Of every reply in reasoning mode with a trace: the share of its facts with a time that is true of its own clip, and the
mean share that is true of other clips of the same class from other videos. The difference is paired by reply; its 95 %
interval resamples source videos. A trace that was learnt by heart fits all clips of a class alike.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from autodrive.annotation.claims import Claim, claims_of, is_true
from autodrive.annotation.facts import WindowFacts, facts_of
from autodrive.datasets.manifest import load_clips
from autodrive.evaluation.intervals import cluster_index, resample_counts
from autodrive.schema import Prediction, read_jsonl
from autodrive.tasks.reading import think_block

OTHER_CLIPS = 20


def main() -> None:
    """Print one line a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("runs", nargs="+", type=Path)
    given = parser.parse_args()
    clips = {clip.id: clip for clip in load_clips(given.clips)}
    facts = {id_: facts_of(clip) for id_, clip in clips.items() if clip.split == "test"}
    for run in given.runs:
        rng = np.random.default_rng(0)
        own, others, videos, num_replies = [], [], [], 0
        alike = defaultdict(list)
        for id_ in facts:
            alike[clips[id_].label].append(id_)
        for reply in read_jsonl(run / "predictions.jsonl", Prediction):
            num_replies += reply.mode == "reasoning"
            trace = think_block(reply.reply) if reply.mode == "reasoning" else None
            claims = [claim for claim in claims_of(trace or "") if claim.start_s is not None]
            if not claims:
                continue
            clip = clips[reply.clip_id]
            elsewhere = [id_ for id_ in alike[clip.label] if clips[id_].source_video_id != clip.source_video_id]
            drawn = rng.choice(elsewhere, size=min(OTHER_CLIPS, len(elsewhere)), replace=False)
            own.append(share_true(claims, facts[clip.id]))
            others.append(float(np.mean([share_true(claims, facts[str(id_)]) for id_ in drawn])))
            videos.append(clip.source_video_id)
        low, high = interval(np.array(own) - np.array(others), videos)
        print(
            f"{run.name}: {len(own)} of {num_replies} replies name facts with times; true of their clip "
            f"{np.mean(own):.3f}, of others of the class {np.mean(others):.3f}, "
            f"difference {np.mean(own) - np.mean(others):+.3f} [{low:+.3f}, {high:+.3f}]"
        )


def share_true(claims: list[Claim], facts: WindowFacts) -> float:
    """The share of claims that the facts bear out."""
    return float(np.mean([is_true(claim, facts) for claim in claims]))


def interval(difference_N: np.ndarray, videos: list[str]) -> tuple[float, float]:
    """Ends of the 95 % interval of a mean that resamples source videos."""
    cluster = cluster_index(videos)
    sums_K, sizes_K = np.bincount(cluster, weights=difference_N), np.bincount(cluster)
    counts_BK = resample_counts(len(sizes_K), np.random.default_rng(0))
    low, high = np.quantile((counts_BK @ sums_K) / (counts_BK @ sizes_K), (0.025, 0.975))
    return float(low), float(high)


if __name__ == "__main__":
    main()
