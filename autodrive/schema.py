"""The records that travel between stages, and how they are read from and written to JSON Lines."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from autodrive.errors import InputError
from autodrive.text_files import text_lines
from autodrive.whole_files import whole

Split = Literal["train", "val", "test"]
Mode = Literal["direct", "reasoning"]
ProbeName = Literal["blind", "shuffled", "frozen", "noise"]
SPLITS: tuple[Split, ...] = get_args(Split)
ENCODING_FIX = "write it again as UTF-8"


class Record(BaseModel):
    """A frozen record; unknown fields are refused so that a misspelt column never passes in silence."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


RecordT = TypeVar("RecordT", bound=Record)


class SourceView(Record):
    """One camera of a recording, as a source names it.

    Attributes:
        path: The video file, absolute.
        offset_s: Time on the road camera's clock at which this file's first frame was taken.
    """

    path: str
    offset_s: float = 0.0


class DataFile(Record):
    """A file beside a video.

    Attributes:
        path: Relative to the manifest's folder, or absolute.
        content_hash: First 32 hexadecimal digits of the SHA-256 of its bytes.
    """

    path: str
    content_hash: str


class View(DataFile):
    """One camera of a clip: what was measured of its video file, not what a description promises.

    Attributes:
        native_fps: Frames per second of the file.
        width: Width of the picture as stored, in pixels.
        height: Height of the picture as stored, in pixels.
        offset_s: Time on the road camera's clock at which this file's first frame was taken.
        num_bytes: Length of the file, by which a run notices that it was replaced; None: not compared.
    """

    native_fps: float = Field(gt=0)
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    offset_s: float = 0.0
    num_bytes: int | None = Field(default=None, gt=0)


class DrivingEvent(Record):
    """Something that the driver of the ego vehicle does, whatever comes of it.

    Attributes:
        kind: What it is, such as `harsh_braking`.
        start_s: When it begins, seconds from the first frame of the recording.
        end_s: When it ends.
        severity: How strong it is, in the unit of its kind (m/s2 for those that are about acceleration).
    """

    kind: str
    start_s: float
    end_s: float
    severity: float


ViewT = TypeVar("ViewT", SourceView, View)
ROAD = "road"


class Recording(Record, Generic[ViewT]):
    """What is known of a recording, whole or in part.

    `source_video_id` groups files that show the same scene (counterfactual siblings, two cameras): splits are by it.
    Times are seconds from the first frame of the road view's file. `label` is what the source says; label sets map it
    to classes. `views` has the camera on the road as `road`, and others, such as `driver`, by name.
    """

    id: str
    dataset: str
    source_video_id: str
    views: dict[str, ViewT]
    label: str | None = None
    event_time_s: float | None = None
    alert_time_s: float | None = None
    ego_involved: bool | None = None
    split: Split | None = None

    @field_validator("views")
    @classmethod
    def _has_a_road_view(cls, views: dict[str, ViewT]) -> dict[str, ViewT]:
        if ROAD not in views:
            raise ValueError(f"no {ROAD!r} view among {sorted(views)}")
        return views

    @property
    def road(self) -> ViewT:
        """The camera that looks at the road."""
        return self.views[ROAD]


class SourceVideo(Recording[SourceView]):
    """One recording as a dataset adapter found it, before pre-flight checks and cutting.

    Attributes:
        metadata: Facts that hold for the whole recording, such as the weather.
        event_metadata: Facts about its event or hazard, such as who is to blame. A window that does not hold that
            moment is not told them.
        hazard_time_s: When the hazard is closest; None: `event_time_s`.
        spans: When facts hold that come and go, such as braking: starts and ends in seconds. A window is told of each
            whether it holds at some moment in it.
        driving_events: What the ego's driver does throughout the recording.
        sensors: File with what the vehicle's sensors measured, which a student may be shown.
        truth: File with what nobody in the vehicle could know, such as true distances; no student is shown it.
    """

    metadata: dict[str, Any] = Field(default_factory=dict)
    event_metadata: dict[str, Any] = Field(default_factory=dict)
    hazard_time_s: float | None = None
    spans: dict[str, tuple[tuple[float, float], ...]] = Field(default_factory=dict)
    driving_events: tuple[DrivingEvent, ...] = ()
    sensors: str | None = None
    truth: str | None = None


class Clip(Recording[View]):
    """A window of a recording: what a student sees at once.

    Attributes:
        start_s: Start of the window.
        end_s: End of the window, not part of it.
        metadata: Facts that hold within the window.
        driving_events: What the ego's driver does while the window lasts; times are the recording's, and an event that
            reaches beyond the window is not cut.
        sensors: What the vehicle's sensors measured during the recording, which a student may be shown.
        truth: What nobody in the vehicle could know; no student is shown it.
    """

    start_s: float = Field(ge=0)
    end_s: float
    metadata: dict[str, Any] = Field(default_factory=dict)
    driving_events: tuple[DrivingEvent, ...] = ()
    sensors: DataFile | None = None
    truth: DataFile | None = None

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

    Where a student is evaluated with another label set than it was taught, `options` are its own classes, and
    `option_classes` the class of the other set that each of them counts as; `answer` is one of these. Elsewhere
    `option_classes` is empty.

    Several references for a free-text question are several annotations with the same task and question: each is taught
    by itself, and evaluation asks the question once and compares the reply with all of them.
    """

    id: str
    clip_id: str
    task: str
    question: str
    options: tuple[str, ...] = ()
    option_classes: tuple[str, ...] = ()
    answer: str
    think: str | None = None
    generator: str
    review: str | None = None

    @model_validator(mode="after")
    def _answer_is_an_option(self) -> "Annotation":
        if self.option_classes and len(self.option_classes) != len(self.options):
            raise ValueError(f"{len(self.option_classes)} option_classes for {len(self.options)} options")
        if self.options and self.answer not in self.answers:
            raise ValueError(f"answer {self.answer!r} is not among the options {list(self.answers)}")
        return self

    @property
    def answers(self) -> tuple[str, ...]:
        """What choosing each option is taken to say, in the values of `answer`."""
        return self.option_classes or self.options

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
        option_classes: Iterable[str] = (),
    ) -> "Annotation":
        """Build an annotation whose id is the hash of its content."""
        options = tuple(options)
        content = _content(clip_id, task, question, options, answer, think, generator)
        return cls(
            id=hashlib.sha256(content.encode()).hexdigest()[:16],
            clip_id=clip_id,
            task=task,
            question=question,
            options=options,
            option_classes=tuple(option_classes),
            answer=answer,
            think=think,
            generator=generator,
        )

    @property
    def content(self) -> str:
        """Everything that is taught, and who made it. The id of a row that somebody wrote by hand may not follow it."""
        return _content(self.clip_id, self.task, self.question, self.options, self.answer, self.think, self.generator)

    @property
    def mode(self) -> Mode:
        """The mode that this annotation teaches: a trace teaches reasoning."""
        return "direct" if self.think is None else "reasoning"

    def without_answer(self) -> Question:
        """The part of this annotation that a prompt may be made of."""
        return Question(task=self.task, question=self.question, options=self.options)


def _content(*said: str | tuple[str, ...] | None) -> str:
    return json.dumps(said, ensure_ascii=False)


class Reply(Record):
    """What a model said to one question, verbatim; it knows no reference, so a clip without one can have it.

    `annotation_id` is the id the question was asked under: its annotation's, where it has one. `option_log_probs`
    follow `options` (natural log, of the option's answer text given the prompt). `finished` says whether the model
    ended the reply itself; if not, it was cut at the token limit. `weights_digest` identifies the model's weights.
    `sample` numbers replies that were drawn; the one without a number is the model's own, most probable one.
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
    sample: int | None = None


class Prediction(Reply):
    """A reply beside its reference, and what was read from it: a line of predictions.jsonl.

    `answer` is the reference, `other_answers` are further ones of a free-text question. `parsed` is a canonical value
    or None; `failure` says why nothing could be read. Of a question about the class, `answer` and `parsed` are classes
    of the run's label set. So are `options`, unless the student was taught another label set: then `options` (and
    `option_log_probs`) are its own classes as shown, and `option_classes` what each of them counts as.
    """

    source_video_id: str
    data_fingerprint: str
    option_classes: tuple[str, ...] = ()
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
    """Read all records of a JSON Lines file.

    Raises:
        InputError: The file is missing or cannot be read as UTF-8 text, or a line is not a valid record (named by its
            number).
    """
    return list(iterate_jsonl(path, record))


def iterate_jsonl(
    path: Path, record: type[RecordT], is_wanted: Callable[[str], bool] = lambda line: True
) -> Iterator[RecordT]:
    """Yield the records of a manifest one by one, but for lines that are not wanted; raises as `read_jsonl` does."""
    if not os.path.lexists(path):
        raise InputError(f"{path}: no such manifest; write it with python -m autodrive.prepare, or fix the path")
    for number, line in text_lines(path, ENCODING_FIX):
        if not line.strip() or not is_wanted(line):
            continue
        try:
            yield record.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "line"
            message = f"{path}:{number}: not a valid {record.__name__}: {where}: {first['msg']}"
            raise InputError(f"{message}; fix that line or remove it") from None


def write_jsonl(path: Path, records: Iterable[Record]) -> None:
    """Write records, one a line, to a file that is whole or not there; raises OSError as `whole` does."""
    with whole(path) as partial, partial.open("w", encoding="utf-8") as lines:
        lines.writelines(record.model_dump_json() + "\n" for record in records)
