"""One run in Weights & Biases: offline unless the user is logged in, resumed as itself, silent about the machine."""

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import wandb
from annotated_types import MinLen
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from matplotlib.figure import Figure
from wandb.errors import AuthenticationError
from wandb.errors import Error as WandbError
from wandb.sdk.wandb_run import Run as WandbRun

from autodrive.errors import InputError
from autodrive.reporting.run_page import FramesOf
from autodrive.tracking.pictures import Media, drawn
from autodrive.tracking.record import Identity, RunRecord
from autodrive.tracking.scores import goals
from autodrive.tracking.tables import Rows
from autodrive.tracking.wandb_mode import REFUSED, wandb_mode

log = logging.getLogger(__name__)

STEP = "trainer/global_step"
CURVES = {"train/loss": "min", "val/accuracy": "max"}  # the best value so far is what the run is known by
MOST_SECONDS_TO_CONNECT = 30
MOST_SECONDS_TO_UPLOAD = 600
DATA_FOLDER = "WANDB_DATA_DIR"


@dataclass(frozen=True)
class Chart:
    """A chart that W&B draws by itself from one of its own presets.

    Attributes:
        preset: Name of the preset.
        rows: The data.
        fields: What of the preset each column is.
        title: Title of the chart.
        strings: Further texts of the preset.
    """

    preset: str
    rows: Rows
    fields: Mapping[str, str]
    title: str
    strings: Mapping[str, str]

    @classmethod
    def bars(cls, rows: Rows, label: str, value: str, title: str) -> "Chart":
        """One bar per row."""
        return cls("wandb/bar/v0", rows, {"label": label, "value": value}, title, {})

    @classmethod
    def confusion(cls, rows: Rows, title: str) -> "Chart":
        """A confusion matrix from the counts of `confusion_rows`."""
        return cls("wandb/confusion_matrix/v1", rows, {name: name for name in rows.columns}, title, {})

    @classmethod
    def lines(cls, rows: Rows, axis: str, title: str) -> "Chart":
        """Lines by `lineKey` over an axis: columns `step`, `lineKey`, `lineVal`."""
        fields = {"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"}
        return cls("wandb/lineseries/v0", rows, fields, title, {"xname": axis})


@dataclass(frozen=True)
class Material:
    """Something that a run works from or leaves behind, known by its digest and not by its place.

    Attributes:
        name: Name of the artifact.
        kind: `dataset` or `model`.
        digest: Identifies its content.
        files: Names of its files and where they lie.
        facts: What is said of it.
    """

    name: str
    kind: str
    digest: str
    files: Mapping[str, Path]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Exhibits:
    """What can be looked at when a run is done.

    Attributes:
        scores: Single values by key, which every logger takes; the rest is for those that can show more.
        tables: Tables by key.
        charts: Charts by key.
        figures: What draws a picture, by key: scores with their intervals, which presets cannot show.
        clips: One row per clip, the most interesting first; its first column is the clip's id.
        frames_of: Gives a clip's frames, for a picture in each row.
        used: What the run worked from.
        made: What it leaves behind.
        summary: Single values about the whole run.
    """

    scores: Mapping[str, float]
    tables: Mapping[str, Rows]
    charts: Mapping[str, Chart]
    figures: Mapping[str, Callable[[], Figure]]
    clips: Rows | None = None
    frames_of: FramesOf | None = None
    used: Sequence[Material] = ()
    made: Sequence[Material] = ()
    summary: Mapping[str, str | float] | None = None


class WandbRunLogger(WandbLogger):
    """Lightning's logger for W&B, told what the run is before it begins.

    Args:
        project: Name of the W&B project.
        media: What is shown of the clips: nothing, strips of frames or films; at most 10 MB in all.
        upload_student: Whether the student's weights are sent; else only their names and digest are.
        save_dir: The run's folder, where W&B keeps its own files.
    """

    def __init__(self, project: Annotated[str, MinLen(1)], media: Media, upload_student: bool, save_dir: str) -> None:
        super().__init__(project=project, save_dir=save_dir)
        self.project, self.folder = project, Path(save_dir)
        self.media: Media = media
        self.upload_student = upload_student
        self.record: RunRecord | None = None
        self._own_data_folder = False

    @property
    @rank_zero_experiment
    def experiment(self) -> WandbRun:
        """The run in W&B, which begins when it is first asked for.

        Raises:
            InputError: The key is not valid.
        """
        if self._experiment is None:
            assert self.record is not None
            self._experiment = self._connect(self.record)
        return self._experiment

    def begin(self, record: RunRecord) -> None:
        """Begin the run in W&B.

        Args:
            record: What it is.

        Raises:
            InputError: The key is not valid.
        """
        self.record = record
        run = self.experiment
        if record.job_type == "train":
            run.define_metric(STEP)
            run.define_metric("*", step_metric=STEP)
            for key, summary in CURVES.items():
                run.define_metric(key, step_metric=STEP, summary=summary)
        if not run.disabled:
            Identity(project=run.project, id=run.id, name=record.name, group=record.group).save(self.folder)

    def _connect(self, record: RunRecord) -> WandbRun:
        wandb.setup(settings=wandb.Settings(silent=True))
        self._own_data_folder = DATA_FOLDER not in os.environ
        # Files of tables wait there for their upload, by default in the user's home. Here they travel with the run.
        os.environ.setdefault(DATA_FOLDER, str(self.folder.resolve() / "wandb" / "upload"))
        mode = wandb_mode()
        try:
            return self._start(record, mode)
        except AuthenticationError:
            raise InputError(REFUSED) from None
        except WandbError as error:
            if mode != "online":
                raise
            reason = " ".join(str(error).split())[:200]
            log.warning("W&B cannot be reached (%s): this run is logged offline; `wandb sync` sends it later", reason)
            return self._start(record, "offline")

    def _start(self, record: RunRecord, mode: str) -> WandbRun:
        return wandb.init(
            project=self.project if record.earlier is None else record.earlier.project,
            id=None if record.earlier is None else record.earlier.id,
            resume=None if record.earlier is None else "allow",
            name=record.name,
            group=record.group,
            job_type=record.job_type,
            tags=list(record.tags),
            config=dict(record.config),
            dir=str(self.folder),
            mode=mode,  # pyright: ignore[reportArgumentType] - checked by wandb_mode
            reinit="finish_previous",  # a job of a sweep that was cut off
            settings=wandb.Settings(
                silent=True,
                console="off",
                host="",
                x_disable_machine_info=True,  # it would tell the user's name, the command's place and the machine's
                x_save_requirements=False,
                x_transaction_log_flush_interval=2.0,  # what a killed process loses, in seconds
                init_timeout=MOST_SECONDS_TO_CONNECT,
                finish_timeout=MOST_SECONDS_TO_UPLOAD,
            ),
        )

    def show(self, exhibits: Exhibits) -> None:
        """Log tables, charts and pictures, and what the run was made from and leaves behind."""
        run = self.experiment
        if run.disabled:
            return
        axis = STEP if self.record is not None and self.record.job_type == "train" else None
        for key in exhibits.scores:
            run.define_metric(key, step_metric=axis)
        # W&B's own definitions have no goal beside the best value of a curve any more; its sweeps state one like this.
        run.config.update({"goals": goals((*(CURVES if axis else ()), *exhibits.scores))}, allow_val_change=True)
        logged: dict[str, Any] = {key: _table(rows) for key, rows in exhibits.tables.items()}
        for key, chart in exhibits.charts.items():
            strings = {"title": chart.title, **chart.strings}
            logged[key] = wandb.plot_table(chart.preset, _table(chart.rows), dict(chart.fields), strings)
        logged |= {key: wandb.Image(draw()) for key, draw in exhibits.figures.items()}
        with tempfile.TemporaryDirectory() as folder:
            if exhibits.clips is not None:
                logged["clips"] = self._clips(exhibits.clips, exhibits.frames_of, Path(folder))
            run.log(logged)
        for material in exhibits.used:
            # `use_artifact` looks things up and so refuses offline; the record that it makes is synced all the same.
            run._log_artifact(self._artifact(material), is_user_created=True, use_after_commit=True)
        for material in exhibits.made:
            run.log_artifact(self._artifact(material))
        run.summary.update(dict(exhibits.summary or {}))

    def _clips(self, clips: Rows, frames_of: FramesOf | None, folder: Path) -> wandb.Table:
        """The table of clips with a picture in each row, as far as they go."""
        if self.media == "none" or frames_of is None:
            return _table(clips)
        files = dict(drawn([row[0] for row in clips.rows], frames_of, self.media, folder))
        kind = wandb.Image if self.media == "strips" else wandb.Video
        rows = [[*row, kind(str(files[row[0]])) if row[0] in files else None] for row in clips.rows]
        self.experiment.summary["media/bytes"] = sum(file.stat().st_size for file in files.values())
        self.experiment.summary["media/clips"] = len(files)
        return _table(Rows((*clips.columns, self.media), rows))

    def _artifact(self, material: Material) -> wandb.Artifact:
        artifact = wandb.Artifact(material.name, material.kind, metadata={**material.facts, "digest": material.digest})
        for name, file in sorted(material.files.items()):
            if self.upload_student and material.kind == "model":
                artifact.add_file(str(file), name)
            else:
                # A reference by content: equal weights are one version, whoever logs them and wherever they lie.
                artifact.add_reference(f"autodrive://{material.digest}/{name}", name, checksum=False)
        return artifact

    def finalize(self, status: str) -> None:
        """Close the run, so that it shows as finished or as failed."""
        try:
            if self._experiment is not None:
                self._experiment.finish(exit_code=0 if status == "success" else 1)
        finally:  # also where it could not begin: the next job of a sweep has a folder of its own
            if self._own_data_folder:
                os.environ.pop(DATA_FOLDER, None)
                self._own_data_folder = False


def _table(rows: Rows) -> wandb.Table:
    """W&B wants one type a column: whole numbers beside fractions become fractions."""
    columns = list(zip(*rows.rows, strict=True))
    mixed = [any(isinstance(v, float) for v in c) and any(type(v) is int for v in c) for c in columns]
    cells: list[Any] = [
        [float(v) if mix and v is not None else v for v, mix in zip(row, mixed, strict=True)] for row in rows.rows
    ]
    return wandb.Table(columns=list(rows.columns), data=cells)
