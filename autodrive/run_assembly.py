"""From a run folder to its student at work: what `predict` and `export` need, which have configurations of their own.

Beside `assembly`, the only place that sees whole configurations. Verbs call it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from autodrive.assembly import build_loaders, build_reader, fresh_student, saved_student
from autodrive.config_check import check_targets
from autodrive.data_assembly import load_run_data
from autodrive.inference.timeline import Watcher, class_question
from autodrive.mixture.clip_batches import Batching, BranchWriter
from autodrive.runs.folder import run_config
from autodrive.runs.foreign import TRAINING_ONLY
from autodrive.runs.machine import device_of
from autodrive.schema import Mode
from autodrive.students.student import Student
from autodrive.tasks.task_book import TaskBook
from autodrive.trees.clip_tree import ClipTree
from autodrive.trees.sample import ClipSample


def build_watcher(config: DictConfig) -> Watcher:
    """The student of a run, ready to watch whole videos; `config` is that of `predict`.

    Of an evaluation of a released student (`ckpt=null`), that one, with the adapter that was put on it.

    Raises:
        InputError: The run holds no student, or its questions do not ask for the class.
    """
    ckpt = Path(config.ckpt)
    run = run_config(ckpt, unbuilt=TRAINING_ONLY)
    run.fps, run.num_frames = config.fps, config.num_frames
    book: TaskBook = instantiate(run.prompts)
    question = class_question([instantiate(node) for node in run.questions.values()], book.headline, ckpt)
    if run.get("ckpt", "") is None:
        check_targets(run, "student")  # of a run folder nothing is built unchecked
        student = fresh_student(run, ()) if instantiate(run.student).base() else saved_student(run, ckpt)
    else:
        student = saved_student(run, ckpt)
    return Watcher(
        student=student.to(device_of("auto")),
        reader=build_reader(config, student),
        writer=BranchWriter(book, instantiate(run.labels)),
        question=question,
        batching=Batching(config.batch_size, run.tokens_per_row, config.num_workers),
        num_orders=config.num_orders,
        seed=run.seed,
    )


class Examination(NamedTuple):
    """What a run's student is compared with other makings of it on.

    Attributes:
        run: The run's configuration.
        student: Its student, with its base in float32.
        samples: A few clips with the run's questions.
        limits: The most tokens of each reply by question and mode.
    """

    run: DictConfig
    student: Student
    samples: list[ClipSample]
    limits: dict[str, Mapping[Mode, int]]

    @property
    def trees(self) -> list[ClipTree]:
        """The clips as the student reads them."""
        return [self.student.processor.encode(sample) for sample in self.samples]


def build_examination(config: DictConfig) -> Examination:
    """What an export is verified, and a served student compared with; `config` is that of `export` or `parity`.

    Raises:
        InputError: The run holds no student, or its clips are not there and `clips` is not given.
    """
    ckpt = Path(config.ckpt)
    run = run_config(ckpt, unbuilt=TRAINING_ONLY)
    if config.clips is not None:
        run.clips = config.clips
    run.paths.data_dir = config.paths.data_dir
    student = saved_student(run, ckpt, torch.float32)
    data = load_run_data(run, needed=(config.split,), asked=("val", "test", config.split))
    loaders, book = build_loaders(run, data, student), data.writer.book
    samples = loaders.some_asked_clips(config.split, tuple(run.evaluation.modes), config.num_clips)
    questions = {id_: question for clip in data.clips[config.split] for id_, question in clip.questions()}
    limits = {id_: book[question.task].max_new_tokens for id_, question in questions.items()}
    return Examination(run, student.to(device_of(config.accelerator)), samples, limits)
