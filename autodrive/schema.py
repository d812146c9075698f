"""The records that travel between stages, and how they are read from and written to JSON Lines."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autodrive.errors import InputError

Split = Literal["train", "val", "test"]
Mode = Literal["direct", "reasoning"]


class Record(BaseModel):
    """A frozen record; unknown fields are refused so that a misspelt column never passes in silence."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


RecordT = TypeVar("RecordT", bound=Record)


class Views(Record):
    """Paths of one recording's cameras, relative to the manifest's folder or absolute."""

    road: str
    driver: str | None = None


class Recording(Record):
    """What is known of a recording, whole or in part.

    `source_video_id` groups files that show the same scene (counterfactual siblings, two cameras): splits are by it.
    Times are seconds from the first frame of the file. `label` is what the source says; label sets map it to classes.
    """

    id: str
    dataset: str
    source_video_id: str
    views: Views
    label: str | None = None
    event_time_s: float | None = None
    alert_time_s: float | None = None
    ego_involved: bool | None = None
    split: Split | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    telemetry: str | None = None


class SourceVideo(Recording):
    """One video file as a dataset adapter found it, before pre-flight checks and chunking."""


class Clip(Recording):
    """A window of a source video: what a student sees at once.

    `native_fps`, `width` and `height` are measured from the file, not taken from its description.
    """

    start_s: float = Field(ge=0)
    end_s: float
    native_fps: float = Field(gt=0)
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    content_hash: str

    @model_validator(mode="after")
    def _ends_after_start(self) -> "Clip":
        if self.end_s <= self.start_s:
            raise ValueError(f"end_s {self.end_s} is not after start_s {self.start_s}")
        return self


class Question(Record):
    """What may be shown to a student: a question without its answer (the information barrier)."""

    task: str
    question: str
    options: tuple[str, ...] = ()


class Annotation(Record):
    """One supervised question about a clip.

    `options` and `answer` hold canonical values (class names, attribute values), not display text; the task and the
    label set turn them into words. `options` are in the order shown; `answer` is one of them if there are any. `think`
    is a trace that leads to the answer: an annotation that has one is taught in reasoning mode.

    Several references for a free-text question are several annotations with the same task and question: each is taught
    by itself, and evaluation asks the question once and compares the reply with all of them.
    """

    id: str
    clip_id: str
    task: str
    question: str
    options: tuple[str, ...] = ()
    answer: str
    think: str | None = None
    generator: str
    review: str | None = None

    @model_validator(mode="after")
    def _answer_is_an_option(self) -> "Annotation":
        if self.options and self.answer not in self.options:
            raise ValueError(f"answer {self.answer!r} is not among the options {list(self.options)}")
        return self

    @classmethod
    def create(
        cls,
        clip_id: str,
        task: str,
        question: str,
        answer: str,
        generator: str,
        options: Iterable[str] = (),
        think: str | None = None,
    ) -> "Annotation":
        """Build an annotation whose id is the hash of everything that is taught, and of who made it."""
        options = tuple(options)
        key = json.dumps([clip_id, task, question, options, answer, think, generator], ensure_ascii=False)
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return cls(
            id=digest,
            clip_id=clip_id,
            task=task,
            question=question,
            options=options,
            answer=answer,
            think=think,
            generator=generator,
        )

    @property
    def mode(self) -> Mode:
        """The mode that this annotation teaches: a trace teaches reasoning."""
        return "direct" if self.think is None else "reasoning"

    def without_answer(self) -> Question:
        """The part of this annotation that a prompt may be made of."""
        return Question(task=self.task, question=self.question, options=self.options)


class Reply(Record):
    """What a model said to one question, verbatim; it knows no reference, so a clip without one can have it.

    `annotation_id` is the id the question was asked under: its annotation's, where it has one. `option_log_probs`
    follow `options` (natural log, of the option's answer text given the prompt). `finished` says whether the model
    ended the reply itself; if not, it was cut at the token limit. `weights_digest` identifies the model's weights.
    """

    annotation_id: str
    clip_id: str
    task: str
    question: str
    options: tuple[str, ...] = ()
    mode: Mode
    model: str
    adapter: str | None = None
    weights_digest: str
    prompt_hash: str
    reply: str
    finished: bool
    option_log_probs: tuple[float, ...] | None = None
    latency_s: float | None = None


class Prediction(Reply):
    """A reply beside its reference, and what was read from it: a line of predictions.jsonl.

    `answer` is the reference, `other_answers` are further ones of a free-text question. `parsed` is a canonical value
    or None; `failure` says why nothing could be read.
    """

    source_video_id: str
    data_fingerprint: str
    answer: str
    other_answers: tuple[str, ...] = ()
    parsed: str | None = None
    failure: str | None = None


class SetAside(Record):
    """An item that a stage did not use, and why: a line of quarantine.jsonl or dropped.jsonl."""

    item: str
    reason: str
    detail: str = ""


def read_jsonl(path: Path, record: type[RecordT]) -> list[RecordT]:
    """Read a manifest.

    Raises:
        InputError: the file is missing, or a line is not a valid record (named by its number).
    """
    return list(iterate_jsonl(path, record))


def iterate_jsonl(path: Path, record: type[RecordT]) -> Iterator[RecordT]:
    """Yield the records of a manifest one by one; raises as `read_jsonl` does."""
    if not path.is_file():
        raise InputError(f"{path}: no such manifest; write it with python -m autodrive.prepare, or mend the path")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield record.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"]) or "line"
                message = f"{path}:{number}: not a valid {record.__name__}: {where}: {first['msg']}"
                raise InputError(f"{message}; mend that line or remove it") from None


def write_jsonl(path: Path, records: Iterable[Record]) -> int:
    """Write records atomically, one a line, and return how many there were."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    count = 0
    with partial.open("w", encoding="utf-8") as lines:
        for record in records:
            lines.write(record.model_dump_json() + "\n")
            count += 1
    partial.replace(path)
    return count
