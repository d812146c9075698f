"""From a configuration to the objects of a run, in the order in which they depend on each other.

Shared by `train.py`, `eval.py` and `autodrive.predict`, so that all read the same clips in the same way.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from autodrive.datasets.manifest import load_clips
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.mixture.datamodule import BranchWriter, ClipReader, ClipTreeDataModule, training_texts
from autodrive.mixture.mixture import LabelledClip, Mixture, label_clips
from autodrive.mixture.selection import Selection, select_clips
from autodrive.prepare import prepare
from autodrive.prompts import PromptBook
from autodrive.schema import Split
from autodrive.students.preprocessing import Resolution, solve_resolution
from autodrive.students.student import Student, StudentSpec, load_student
from autodrive.video.frame_grid import FrameGrid

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunData:
    """What a run knows about its clips before any model exists."""

    labels: LabelSet
    writer: BranchWriter
    selection: Selection
    mixture: Mixture
    clips: dict[Split, list[LabelledClip]]


def prepared_manifest(config: DictConfig) -> Path:
    """The manifest of a run: `clips` if given, else `dataset`, prepared below `paths.data_dir`.

    An earlier run's manifest is brought up to date, which takes little time: files that were scanned once are not
    scanned again, and a source that has changed since is noticed.
    """
    if config.clips is not None:
        return Path(config.clips)
    settings = {
        "dataset": OmegaConf.to_container(config.dataset, resolve=True),
        "duration_s": config.duration_s,
        "prepare": OmegaConf.to_container(config.prepare, resolve=True),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
    adapter = instantiate(config.dataset)
    out = Path(config.paths.data_dir) / f"{adapter.name}-{digest}"
    prepare(
        adapter,
        out,
        duration_s=config.duration_s,
        stride_s=config.prepare.stride_s,
        split_fractions=OmegaConf.to_container(config.prepare.split_fractions),  # type: ignore[arg-type]
        seed=config.prepare.seed,
        data_dir=Path(config.paths.data_dir),
    )
    return out / "clips.jsonl"


def load_run_data(config: DictConfig, needed: Sequence[Split]) -> RunData:
    """Clips, classes, annotations and visits of a run.

    Raises:
        InputError: as `select_clips`, `Mixture` and the manifest's loader do.
    """
    labels: LabelSet = instantiate(config.labels)
    prompts: PromptBook = instantiate(config.prompts)
    mixture: Mixture = instantiate(config.mixture)
    clips = load_clips(prepared_manifest(config))
    selection = select_clips(clips, labels, FrameGrid(config.fps), needed)
    labelled = label_clips(selection, mixture, labels, config.seed)
    if "train" in needed:
        mixture.plan_visits(labelled["train"], config.seed)  # a wrong ratio is found before training starts
    return RunData(labels, BranchWriter(prompts, labels), selection, mixture, labelled)


def build_student(config: DictConfig, data: RunData) -> Student:
    """The student that training starts with: that of `student_from`, or a fresh one of `student`'s recipe.

    Raises:
        InputError: the weights are not there, or as `student_spec` does.
    """
    if config.student_from is not None:
        return saved_student(config, Path(config.student_from))
    spec = student_spec(config)
    texts = training_texts(data.clips["train"], data.writer)
    return spec.build(texts, config.fps, resolution_of(config, spec.frames_per_group), config.seed)


def check_student(config: DictConfig) -> None:
    """Find a wrong `student` or `resolution` before anything is prepared.

    Raises:
        InputError: as `student_spec` and `resolution_of` do.
    """
    resolution_of(config, student_spec(config).frames_per_group)


def student_spec(config: DictConfig) -> StudentSpec:
    """The recipe of the configured student.

    Raises:
        InputError: a full-size student meets a laptop's values.
    """
    spec: StudentSpec = instantiate(config.student)
    if spec.full_size and config.scale == "tiny":
        message = f"student={spec.name} is full size but scale=tiny sets a laptop's frame rate, resolution and lr"
        raise InputError(f"{message}; add scale=paper")
    return spec


def saved_student(config: DictConfig, run: Path) -> Student:
    """The student that a run folder holds, set to this configuration's frame rate and resolution."""
    student = load_student(run / "checkpoints" / "student")
    resolution = resolution_of(config, student.processor.frames_per_group)
    student.processor = student.processor.with_settings(config.fps, resolution)
    return student


def device_of(accelerator: str) -> torch.device:
    """Where a student works outside of the trainer, which leaves it on the CPU; `accelerator` as the trainer's."""
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def resolution_of(config: DictConfig, frames_per_group: int) -> Resolution:
    """The configured resolution; `auto` is solved from `tokens_per_clip`, and the solution is logged.

    Args:
        config: Configuration of the run.
        frames_per_group: Frames of this student that share a group of visual tokens.
    """
    if config.resolution != "auto":
        return Resolution.parse(config.resolution)
    num_frames = round(config.fps * config.duration_s)
    resolution, num_tokens = solve_resolution(num_frames, config.tokens_per_clip, frames_per_group)
    log.info("resolution=auto: %s, at most %d of %d tokens a clip", resolution, num_tokens, config.tokens_per_clip)
    return resolution


def build_data_module(config: DictConfig, data: RunData, student: Student) -> ClipTreeDataModule:
    """Loaders that read clips the way this student wants them."""
    reader = ClipReader(
        instantiate(config.decoder), student.processor, FrameGrid(config.fps), cache=instantiate(config.frame_cache)
    )
    return ClipTreeDataModule(
        data.clips,
        data.mixture,
        reader,
        data.writer,
        batch_size=config.batch_size,
        tokens_per_row=config.tokens_per_row,
        num_steps=config.get("num_steps", 0),
        num_workers=config.num_workers,
        seed=config.seed,
    )


def mcq_answers(clips: Sequence[LabelledClip]) -> dict[str, int]:
    """Index of the right option by annotation id, for the multiple-choice questions of these clips."""
    return {a.id: a.options.index(a.answer) for c in clips for a in c.annotations if a.task == "mcq"}
