"""Does a trained student look at the impact? Freezes frames around it, and around random moments, and compares.

python experiments/right_reason.py outputs/train/<run> [<run> …]

Three conditions on the test split of the rendered world: as it is; frames in [event - 0.1 s, event + 0.33 s] replaced
by the last frame before them; a window of the same length elsewhere in the clip frozen likewise (the control). A normal
clip's event is its hazard moment. Prints accuracy and collision recall with 95 % intervals over scenes, and JSON.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from autodrive.assembly import saved_student
from autodrive.config import register
from autodrive.data_assembly import load_run_data
from autodrive.inference.answering import answer_questions, beside_references, respondent_of
from autodrive.mixture.clip_batches import Batching, ClipReader
from autodrive.mixture.datamodule import ClipTreeDataModule
from autodrive.mixture.run_data import RunData
from autodrive.runs.folder import run_config
from autodrive.schema import Clip
from autodrive.tasks.scorecard import scorecard
from autodrive.trees.sample import Video
from autodrive.video.frame_grid import chosen_frames

BEFORE_S, AFTER_S = 0.1, 0.33
CONDITIONS = ("as_is", "impact_frozen", "random_frozen")


@dataclass(frozen=True)
class FreezingReader(ClipReader):
    """Reads a clip with one window frozen.

    Attributes:
        condition: one of CONDITIONS.
        seed: of the random windows.
    """

    condition: str = "as_is"
    seed: int = 0

    def read(self, clip: Clip, phase: float = 0.0) -> Video:
        """As `ClipReader.read`, then frozen."""
        video = super().read(clip, phase)
        if self.condition == "as_is":
            return video
        decoded = video.frames
        event_s = float(clip.event_time_s if clip.event_time_s is not None else clip.metadata["hazard_time_s"])
        start_s = event_s - BEFORE_S if self.condition == "impact_frozen" else self._elsewhere(clip, event_s)
        frozen = (decoded.timestamps_s >= start_s) & (decoded.timestamps_s <= start_s + BEFORE_S + AFTER_S)
        source = torch.arange(len(frozen))
        before = torch.nonzero(~frozen & (decoded.timestamps_s < start_s)).flatten()
        source[frozen] = int(before[-1]) if len(before) else 0
        return replace(video, frames=replace(decoded, frames_TCHW=decoded.frames_TCHW[source]))

    def _elsewhere(self, clip: Clip, event_s: float) -> float:
        """Start of a window of the same length that does not touch the impact's."""
        length_s = BEFORE_S + AFTER_S
        random = np.random.default_rng([self.seed, int(clip.road.content_hash[:8], 16)])
        while True:
            start_s = random.uniform(clip.start_s, clip.end_s - length_s)
            if start_s + length_s < event_s - BEFORE_S or start_s > event_s + AFTER_S:
                return start_s


def evaluate_frozen(config: DictConfig, data: RunData, run: Path, condition: str) -> dict[str, float]:
    """Metrics of the multiple-choice question under one condition."""
    student, frames = saved_student(config, run), chosen_frames(config.fps, config.num_frames)
    reader = FreezingReader(instantiate(config.decoder), student.processor, frames, condition=condition)
    clips, book = data.clips["test"], data.writer.book
    batching = Batching(config.batch_size, config.tokens_per_row, config.num_workers)
    module = ClipTreeDataModule(data.clips, None, reader, data.writer, batching, num_steps=0)
    loader = module.question_dataloader("test", ("direct",), tasks=(book.headline,))
    questions = {id_: question for clip in clips for id_, question in clip.questions()}
    replies = answer_questions(student, loader, questions, book, respondent_of(student))
    predictions = list(beside_references(replies, clips, book, data.labels, data.selection.fingerprint))
    return scorecard(predictions, book, data.labels)


def main() -> None:
    """Evaluate every run under every condition."""
    parser = argparse.ArgumentParser(description="Freezes frames around the impact and compares.")
    parser.add_argument("runs", nargs="+", type=Path)
    arguments = parser.parse_args()
    register()
    results = {}
    for run in arguments.runs:
        config = run_config(run)
        data = load_run_data(config, needed=("test",))
        results[str(run)] = {c: evaluate_frozen(config, data, run, c) for c in CONDITIONS}
        for condition, metrics in results[str(run)].items():
            shown = " ".join(
                f"{key} {metrics[f'test/{key}']:.3f} [{metrics[f'test/{key}_ci_low']:.3f}, "
                f"{metrics[f'test/{key}_ci_high']:.3f}]"
                for key in ("accuracy", "collision_recall", "near_collision_recall", "normal_recall")
            )
            print(f"{run.name} {condition:14} N={metrics['test/n']:.0f} {shown}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
