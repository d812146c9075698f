"""From a configuration to a run's clips and to what is taught and asked about them.

Beside `assembly`, which continues with a student, the only place that sees whole configurations. It imports no model
and no trainer: what a mixture comes to is known in seconds.
"""

import gc
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from autodrive.annotation.retention import Retention
from autodrive.annotation.sources import AnnotationSource
from autodrive.annotation.supply import AnnotatedClip, supply
from autodrive.datasets.manifest import load_clips
from autodrive.datasets.preparing import PrepareSettings, prepare
from autodrive.errors import InputError
from autodrive.evaluation.slices import check_slices
from autodrive.label_sets import shipped_label_sets
from autodrive.labels import LabelSet
from autodrive.mixture.clip_batches import BranchWriter
from autodrive.mixture.epoch import EpochPlan
from autodrive.mixture.mixture import Mixture
from autodrive.mixture.run_data import RunData
from autodrive.mixture.selection import Wanted, select_clips
from autodrive.schema import Split
from autodrive.tasks.task_book import TaskBook
from autodrive.video.frame_grid import chosen_frames

log = logging.getLogger(__name__)

MANIFEST = "clips.jsonl"


def prepared_manifest(config: DictConfig) -> Path:
    """The manifest of a run: `clips` if given, else `dataset`, prepared below `paths.data_dir`.

    An earlier run's manifest is brought up to date, which takes little time: files that were scanned once are not
    scanned again, and a source that has changed since is noticed.
    """
    if config.clips is not None:
        return Path(config.clips)
    out, data_dir = _place_of_manifest(config), Path(config.paths.data_dir)
    node: Any = OmegaConf.to_container(config.prepare, resolve=True)
    settings = PrepareSettings(duration_s=config.duration_s, **node)
    prepare(instantiate(config.dataset), out, settings, data_dir=data_dir)
    return out / MANIFEST


def _place_of_manifest(config: DictConfig) -> Path:
    """The folder below `paths.data_dir` that the configured data set is prepared into."""
    node: Any = OmegaConf.to_container(config.prepare, resolve=True)
    dataset = OmegaConf.to_container(config.dataset, resolve=True)
    identity = {"dataset": dataset, "duration_s": config.duration_s, "prepare": node}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]
    return Path(config.paths.data_dir) / f"{instantiate(config.dataset).name}-{digest}"


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Some 100,000 records are read, none of which refer back: looking for cycles meanwhile takes a quarter as long."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@_no_search_for_cycles()
def load_run_data(
    config: DictConfig, needed: Sequence[Split], asked: Sequence[Split] = ("val", "test"), dry: bool = False
) -> RunData:
    """Clips, classes, annotations and visits of a run.

    Args:
        config: The composed configuration of a training or an evaluation.
        needed: Splits that must hold clips.
        asked: Splits that are annotated by `questions`; the others by `annotations`, to be taught.
        dry: Read records alone: nothing is prepared, and videos need not be there.

    Raises:
        InputError: As `select_clips`, `Mixture`, the sources and the manifest's loader do, or validation would have
            nothing to ask.
    """
    labels: LabelSet = instantiate(config.labels)
    book: TaskBook = instantiate(config.prompts)
    mixture: Mixture = instantiate(config.mixture)
    trains = "train" in needed and "train" not in asked
    teaching = _taught_sources(config, book, mixture, trains)
    questions_of = _sources(config, "questions", book)
    retention = {name: source for name, source in questions_of.items() if isinstance(source, Retention)}
    asking = {name: source for name, source in questions_of.items() if name not in retention}
    clips = load_clips(_prepared_before(config) if dry else prepared_manifest(config), check_files=not dry)
    supplied = partial(supply, known={clip.id for clip in clips}, book=book, labels=labels, seed=config.seed)
    taught = supplied(teaching, [clip for clip in clips if clip.split not in (None, *asked)], as_references=False)
    questions = supplied(asking, [clip for clip in clips if clip.split in asked], as_references=True)
    by_id = {member.clip.id: member for member in (*taught.clips, *questions.clips)}
    frames, wanted = chosen_frames(config.fps, config.num_frames), Wanted(needed, trains, shipped_label_sets())
    selection = select_clips(clips, by_id, labels, frames, wanted)
    examined = [member.clip for member in selection.clips[cast(Split, config.get("split", "test"))]]
    kept = supplied(retention, examined, as_references=True)
    check_slices(config.evaluation.get("slices", ()), examined)
    # A wrong ratio is found before training starts.
    plan = _training_plan(config, mixture, selection.clips["train"]) if trains else None
    if trains and not headline_answers(selection.clips["val"], book):
        newest = "the newest checkpoint counts as the best"
        log.warning("questions: none of task %s with options for the val split; %s", book.headline, newest)
    # The same file may be taught and asked; what is wrong with a row is said once.
    set_aside = list(dict.fromkeys([*taught.set_aside, *questions.set_aside, *kept.set_aside]))
    data = RunData(
        labels=labels,
        writer=BranchWriter(book, labels),
        selection=selection,
        mixture=mixture,
        plan=plan,
        annotations_set_aside=set_aside,
        retention=[member for member in kept.clips if member.by_source],
        remarks=mixture.lines(config.annotations) if trains else (),
    )
    for line in data.lines():  # before the hours that a training takes; under its table, too
        log.warning(line)
    return data


def _training_plan(config: DictConfig, mixture: Mixture, clips: Sequence[AnnotatedClip]) -> EpochPlan:
    """What an epoch over the training clips visits, of which a batch must not hold one again and again."""
    plan = mixture.plan(clips, tuple(config.annotations), config.seed)
    if config.batch_size > len(plan.visits):
        fix = f"give batch_size={len(plan.visits)} or less" if plan.visits else "give annotations of these clips"
        message = f"batch_size={config.batch_size}: an epoch has only {len(plan.visits)} visits of training clips"
        raise InputError(f"{message}; {fix}")
    return plan


def _taught_sources(config: DictConfig, book: TaskBook, mixture: Mixture, trains: bool) -> dict[str, AnnotationSource]:
    """The sources that the mixture takes; where one is trained, all that it needs are there."""
    sources = _sources(config, "annotations", book)
    if trains:
        mixture.check_sources(sources)
        if left_out := [name for name in sources if name in mixture.leave_out]:
            log.info("not taught (mixture.leave_out): %s", ", ".join(left_out))
    return {name: sources[name] for name in mixture.taught(sources)}


def _sources(config: DictConfig, group: str, book: TaskBook) -> dict[str, AnnotationSource]:
    """The annotation sources of a group by name, whose tasks the book must know."""
    sources = {str(name): cast(AnnotationSource, instantiate(source)) for name, source in config[group].items()}
    for name, source in sources.items():
        task = getattr(source, "task", None)  # a file's rows name theirs themselves
        if task is not None and task not in book.tasks:
            raise InputError(f"{group}.{name}.task={task}: no such task; choose from {', '.join(book.tasks)}")
    return sources


def _prepared_before(config: DictConfig) -> Path:
    """The manifest of a run as far as it is there already.

    Raises:
        InputError: The data set is not prepared yet.
    """
    path = Path(config.clips) if config.clips is not None else _place_of_manifest(config) / MANIFEST
    if config.clips is None and not path.is_file():
        message = f"dry_run: reads records and prepares nothing, and {path} is not there yet"
        raise InputError(f"{message}; give clips=<manifest>, or leave dry_run out once")
    return path


def headline_answers(clips: Sequence[AnnotatedClip], book: TaskBook) -> dict[str, int]:
    """Index of the right option by annotation id, for the headline task's questions about these clips."""
    return book.headline_answers(annotation for clip in clips for annotation in clip.annotations)
