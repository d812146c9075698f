"""The procedurally rendered dashcam world as a data set: what is missing is rendered, the rest is read from disk."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le
from pydantic import TypeAdapter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from autodrive.bounds import Choices, Count, CountOrZero, Even, Seed
from autodrive.datasets.exclusive import exclusive
from autodrive.errors import InputError
from autodrive.schema import SetAside, SourceVideo, Split
from autodrive.workers import deaf_to_ctrl_c
from autodrive.world.film import film_scene
from autodrive.world.settings import CONDITIONS, SCENARIOS, SensorQuality, WorldSettings

_RECORDS = TypeAdapter(list[SourceVideo])
# Shorter videos have no room for a hazard; every frame of a scene is simulated, so longer ones take very long.
VideoSeconds = Annotated[float, Ge(2), Le(600)]
# Settings, split, scene number and folder: all that a worker needs.
_Task = tuple[WorldSettings, Split, int, Path]


@dataclass
class SyntheticDataset:
    """Adapter for the rendered world; every scene gives three sibling videos, one of each class.

    Attributes:
        root: Cache folder; videos lie in a subfolder named after the settings' fingerprint.
        num_train_scenes, num_val_scenes, num_test_scenes: Scenes of each split (three videos each).
        seed: Root of all randomness.
        duration_s: Length of the videos.
        video_duration_s: If set, render videos of this length with the event anywhere in them (for chunking).
        native_fps, width, height: Frames per second, and pixels, of the videos.
        scenarios, conditions: What to draw from; see `autodrive.world.settings`.
        witnessed_every: One scene in so many comes with one more video, of two others who collide in view of the ego
            (`ego_involved` is false, so that `prepare` sets it aside unless asked); 0: none does.
        sensors: How well the car's sensors measure: `clean` or `rough`; see `autodrive.world.sensors`.
        num_workers: Rendering processes; None takes one for each CPU.
    """

    root: str
    num_train_scenes: Count = 720
    num_val_scenes: Count = 66
    num_test_scenes: Count = 66
    seed: Seed = 0
    duration_s: VideoSeconds = 4.0
    video_duration_s: VideoSeconds | None = None
    native_fps: Annotated[int, Ge(5), Le(240)] = 30
    width: Annotated[int, Ge(32), Le(4096), Even] = 112
    height: Annotated[int, Ge(16), Le(4096), Even] = 56
    scenarios: Choices[str] = SCENARIOS
    conditions: Choices[str] = CONDITIONS
    witnessed_every: CountOrZero = 20
    sensors: SensorQuality = "clean"
    num_workers: Annotated[Count, Le(256)] | None = None

    @property
    def name(self) -> str:
        """Name of the data set in records."""
        return "synthetic"

    @property
    def settings(self) -> WorldSettings:
        """What decides the pictures; the number of scenes is not part of it."""
        return WorldSettings(
            seed=self.seed,
            duration_s=float(self.video_duration_s or self.duration_s),
            event_anywhere=self.video_duration_s is not None,
            fps=self.native_fps,
            width=self.width,
            height=self.height,
            scenarios=tuple(self.scenarios),
            conditions=tuple(self.conditions),
            witnessed_every=self.witnessed_every,
            sensors=self.sensors,
        )

    def fingerprint(self) -> str:
        """Hash of the settings and the renderer's version."""
        return self.settings.fingerprint()

    @property
    def folder(self) -> Path:
        """Where the videos of these settings lie."""
        return Path(self.root).expanduser().resolve() / f"synthetic_{self.fingerprint()}"

    def videos(self) -> tuple[list[SourceVideo], list[SetAside]]:
        """Render the scenes that are missing and return all records with absolute paths.

        A scene counts as rendered once its record file exists, which is written last; a killed run goes on from there.

        Raises:
            InputError: The settings are wrong, or the folder cannot be written.
        """
        scenes = self._scenes()
        self._make_folders()
        failures: dict[str, SetAside] = {}
        if self._missing(scenes):
            with exclusive(self.folder):  # who comes second finds them rendered
                failures = {f.item: f for f in self._render(self._missing(scenes))}
        videos, set_aside = [], []
        for split, index in scenes:
            key = f"{split}_scene_{index:05d}"
            if key in failures:
                set_aside.append(failures[key])
            else:
                records = _RECORDS.validate_json(self._record_path(split, index).read_bytes())
                videos += [self._absolute(record) for record in records]
        return videos, set_aside

    def _scenes(self) -> list[tuple[Split, int]]:
        counts: list[tuple[Split, int]] = [
            ("train", self.num_train_scenes),
            ("val", self.num_val_scenes),
            ("test", self.num_test_scenes),
        ]
        for split, count in counts:
            if count < 0:
                raise InputError(f"dataset.num_{split}_scenes: {count} is negative; give 0 or more")
        return [(split, index) for split, count in counts for index in range(count)]

    def _missing(self, scenes: list[tuple[Split, int]]) -> list[tuple[Split, int]]:
        return [scene for scene in scenes if not self._record_path(*scene).is_file()]

    def _record_path(self, split: str, index: int) -> Path:
        return self.folder / "scenes" / f"{split}_{index:05d}.json"

    def _absolute(self, record: SourceVideo) -> SourceVideo:
        def absolute(path: str | None) -> str | None:
            return path and str(self.folder / path)

        views = {n: view.model_copy(update={"path": absolute(view.path)}) for n, view in record.views.items()}
        files = {"sensors": absolute(record.sensors), "truth": absolute(record.truth)}
        return record.model_copy(update={"views": views, **files})

    def _make_folders(self) -> None:
        try:
            for part in ("videos", "sensors", "truth", "scenes"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
            settings = TypeAdapter(dict).dump_json(asdict(self.settings), indent=1)
            (self.folder / "world.json").write_bytes(settings)
        except OSError as error:
            raise InputError(
                f"dataset.root={self.root}: cannot be written ({error.strerror}); choose another folder"
            ) from None

    def _render(self, missing: list[tuple[Split, int]]) -> Iterator[SetAside]:
        """Render scenes in parallel with a progress bar; yields those for which no family was found."""
        if not missing:
            return
        workers = max(1, min(self.num_workers or os.cpu_count() or 1, len(missing)))
        tasks: list[_Task] = [(self.settings, split, index, self.folder) for split, index in missing]
        with _progress() as progress:
            bar = progress.add_task("rendering scenes", total=len(tasks))
            for failure in _map(tasks, workers):
                progress.advance(bar)
                if failure is not None:
                    yield failure


def _progress() -> Progress:
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(TextColumn("{task.description}"), *columns)


def _map(tasks: list[_Task], workers: int) -> Iterator[SetAside | None]:
    if workers == 1:
        yield from map(_film_and_record, tasks)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        with deaf_to_ctrl_c():
            futures = [pool.submit(_film_and_record, task) for task in tasks]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _film_and_record(task: _Task) -> SetAside | None:
    settings, split, index, folder = task
    try:
        records = film_scene(settings, split, index, folder)
    except RuntimeError as error:
        return SetAside(item=f"{split}_scene_{index:05d}", reason="no_family_found", detail=str(error))
    path = folder / "scenes" / f"{split}_{index:05d}.json"
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(_RECORDS.dump_json(records))
    partial.replace(path)
    return None
