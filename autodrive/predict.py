"""Slides a student over a whole video: a timeline of class probabilities, the best window, and a picture.

python -m autodrive.predict video=drive.mp4 ckpt=outputs/train/<run>
python -m autodrive.predict video=drive.mp4 ckpt=outputs/train/<run> question="Who could have avoided it?"
"""

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from autodrive.config import PredictConfig, check_config
from autodrive.counted import counted
from autodrive.entry_point import CommandLine, run_with_hydra
from autodrive.errors import InputError
from autodrive.runs.folder import RunFiles, read_json, run_config
from autodrive.runs.foreign import TRAINING_ONLY

log = logging.getLogger(__name__)


def with_run_values(config: DictConfig, command_line: CommandLine) -> DictConfig:
    """The run's frames and duration where the command line leaves them to it; InputError if `ckpt` is no run."""
    run = run_config(Path(config.ckpt), unbuilt=TRAINING_ONLY)
    if config.fps is None and config.num_frames is None:
        config.fps, config.num_frames = run.fps, run.num_frames
    if config.window_s is None:
        config.window_s = run.duration_s
    return config


def job(config: DictConfig) -> dict[str, Any]:
    """Predict one video and write `timeline.json` and `timeline.png` into `out`."""
    check_config(config, PredictConfig)
    # Imported here: they take seconds, and a wrong value is refused before them.
    from autodrive.assembly import build_loggers
    from autodrive.inference.timeline import free_question, measured, window_clips
    from autodrive.reporting.timeline import timeline_figure
    from autodrive.run_assembly import build_watcher
    from autodrive.runs.machine import quiet_libraries, share_cores
    from autodrive.tracking.exhibits import timeline_exhibits
    from autodrive.tracking.record import video_record
    from autodrive.tracking.tracker import Tracker, check_loggers

    video, out = Path(config.video), Path(config.out)
    check_loggers(config)
    quiet_libraries()
    share_cores(config.num_workers)
    info = measured(video)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out={out}: cannot be written ({error.strerror}); choose another folder") from None
    watcher = build_watcher(config)
    question = None if config.question is None else free_question(config.question, config.ask_as, watcher.writer.book)
    clips = window_clips(video, info, config.window_s, config.stride_s)
    timeline = watcher.watch(clips)
    facts = {"content_hash": info.content_hash, "duration_s": info.duration_s, "native_fps": info.native_fps}
    record = {"video": str(video), "ckpt": config.ckpt, "adapter": watcher.student.adapter_name()}
    record |= facts | {"fps": config.fps, "num_frames": config.num_frames} | timeline.record()
    if question is not None:
        reply = watcher.answer(clips[timeline.best], question)
        taught = (
            read_json(RunFiles(Path(config.ckpt)).provenance).get("mixture", {}).get("annotations_per_epoch_by_task")
        )
        if taught is not None and reply.task not in taught:
            log.warning("ask_as=%s: this run was taught no such questions, so its reply means little", reply.task)
        record["question"] = {"task": reply.task, "mode": reply.mode, "question": reply.question, "reply": reply.reply}
    (out / "timeline.json").write_text(json.dumps(record, indent=2) + "\n")
    frames = watcher.frames_to_show(clips[timeline.best])
    class_names = [watcher.writer.labels[name].short for name in timeline.classes]
    timeline_figure(video.name, timeline, class_names, frames).savefig(out / "timeline.png")
    # What is logged may travel, and a file's name may say where it comes from.
    anonymous = partial(timeline_figure, f"video {info.content_hash[:8]}", timeline, class_names, frames)
    with Tracker(build_loggers(config, out), video_record(config, facts)) as tracker:
        tracker.finish(partial(timeline_exhibits, timeline, class_names, anonymous, Path(config.ckpt)))
    table = Table(title=f"{record['video']}: {counted(len(record['windows']), 'window')}")
    table.add_column("window (s)", justify="right")
    for name in timeline.classes:
        table.add_column(f"P({name})", justify="right")
    for number, window in enumerate(record["windows"]):
        marker = " *" if number == timeline.best else ""
        cells = [f"{p:.3f}" for p in window["probabilities"].values()]
        table.add_row(f"{window['start_s']:.2f} to {window['end_s']:.2f}{marker}", *cells)
    console = Console()
    console.print(table)
    console.print(f"* the window with the most probable incident; picture: {out / 'timeline.png'}")
    if question is not None:
        console.print(f"about it: {question.question}\n{record['question']['reply']}", markup=False, highlight=False)
    return record


def main() -> None:
    """Read the command line and predict."""
    run_with_hydra(job, "predict", with_run_values)


if __name__ == "__main__":
    main()
