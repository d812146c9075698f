"""Makes annotations of clips: captions, questions with answers, and traces.

    python -m autodrive.annotate clips=<manifest> out=<folder> [teacher=rules] [split=train] [dry_run=true]

Writes into `out`: annotations.jsonl (one Annotation per line, to train on), dropped.jsonl (what was not kept, with the
reason), funnel.json (how many of what), annotate.json (what it was made of), annotations.html (some clips to look at)
and work.jsonl (so that an interrupted run continues where it was). See docs/supervision.md.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table

from autodrive.annotation.driver import AnnotationFiles, Driver
from autodrive.annotation.forecast import forecast_table
from autodrive.annotation.funnel import StageCount
from autodrive.annotation.stages import Item, Setting
from autodrive.config import AnnotateConfig, check_config
from autodrive.counted import counted
from autodrive.datasets.manifest import load_clips
from autodrive.entry_point import run_with_hydra
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.reporting.annotation_page import choose_clips, frames_with, write_annotation_page
from autodrive.reporting.terminal import DASH
from autodrive.runs.provenance import git_commit
from autodrive.schema import Annotation, Clip, read_jsonl
from autodrive.whole_files import whole

FOR_MODELS = ("base_url", "model", "max_requests")
ASKED, MADE = ("requests", "replies", "failed", "parsed", "unparsable"), ("candidates", "kept", "dropped")


def job(config: DictConfig) -> list[StageCount]:
    """Annotate the clips that the configuration names, and show the funnel."""
    check_config(config, AnnotateConfig)
    for key in FOR_MODELS:
        if config[key] is not None and "roles" not in config.teacher:
            fix = "add teacher=openai_compatible, or leave it out"
            raise InputError(f"{key}={config[key]}: this teacher asks no model; {fix}")
    if "roles" in config.teacher and config.executor.get("workers") == "processes":
        raise InputError(
            "executor=processes: calls of models are waited for by threads; leave it out, or executor=threads"
        )
    setting = Setting(instantiate(config.labels), instantiate(config.prompts), config.seed)
    teacher = instantiate(config.teacher)
    clips = clips_of_split(Path(config.clips), config.split, check_files=not config.dry_run)
    items = [Item.of(clip, setting.labels) for clip in clips]
    console = Console()
    if config.dry_run:
        console.print(forecast_table(teacher.forecast(setting, items)))
        return []
    stages = teacher.stages(setting)
    files = AnnotationFiles(Path(config.out))
    try:
        files.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out={files.folder}: cannot be written ({error.strerror}); choose another folder") from None
    with Progress(SpinnerColumn(), TextColumn("{task.description} {task.completed:.0f}"), transient=True) as progress:
        bars = {stage.name: progress.add_task(stage.name, total=None) for stage in stages}
        executor = instantiate(config.executor)
        driver = Driver(stages, setting, executor, files, lambda name: progress.advance(bars[name]))
        counts = driver.run(items)
    write_provenance(files, config, clips, setting)
    print_funnel(counts, len(clips), setting.labels, console)
    if config.num_shown:
        shown = choose_clips(items, read_jsonl(files.annotations, Annotation), config.num_shown, config.seed)
        frames_of = frames_with(instantiate(config.decoder), [item.clip for item in shown])
        remark = f"{counted(len(shown), 'clip')} of {len(clips)}, drawn from every class in turn."
        write_annotation_page(files.page, shown, frames_of, remark)
        console.print(f"to look at: {files.page}", soft_wrap=True)
    console.print(f"{files.annotations}", soft_wrap=True)
    if driver.paused is not None:
        console.print(f"paused: {driver.paused}; the same command goes on", soft_wrap=True, highlight=False)
    return counts


def clips_of_split(manifest: Path, split: str | None, *, check_files: bool) -> list[Clip]:
    """The clips of a manifest, or those of one split; raises InputError if there are none, as `load_clips` does."""
    clips = [clip for clip in load_clips(manifest, check_files) if split in (None, clip.split)]
    if not clips:
        raise InputError(f"split={split}: {manifest} has no clip of it; leave split= out for all")
    return clips


def print_funnel(counts: Sequence[StageCount], num_clips: int, labels: LabelSet, console: Console) -> None:
    """Show what came of what, stage by stage: requests, replies, candidates; what was dropped, and the kept shares."""
    asked = Table(title=f"{counted(num_clips, 'clip')}: requests = replies (parsed or unparsable) + failed")
    made = Table(title="candidates = kept + dropped (annotations; kept shares by class of the clip)")
    classes = list(dict.fromkeys(name for count in counts for name in count.by_class))
    for table, names in (
        (asked, ASKED),
        (made, (*MADE, *classes)),
    ):
        table.title_justify, table.title_style = "left", "bold"
        for name in ("stage", *names):
            title = labels[name].short if name in labels.names else name.replace("_", " ")
            table.add_column(title, justify="left" if name == "stage" else "right", no_wrap=True)
    total: Counter[str] = Counter()
    of_class: dict[str, Counter[str]] = {name: Counter() for name in classes}
    for count in counts:
        numbers = {name: value for name, value in count.model_dump().items() if isinstance(value, int)}
        total.update(numbers)
        for name, share in count.by_class.items():
            of_class[name].update(share.model_dump())
        asked.add_row(count.stage, *(str(numbers[name]) for name in ASKED))
        shares = [_share(count.by_class[name].model_dump()) if name in count.by_class else DASH for name in classes]
        made.add_row(count.stage, *(str(numbers[name]) for name in MADE), *shares)
    asked.add_row("all", *(str(total[name]) for name in ASKED), style="bold")
    made.add_row("all", *(str(total[name]) for name in MADE), *map(_share, of_class.values()), style="bold")
    console.print(asked, made, sep="\n")
    reasons: Counter[str] = Counter()
    for count in counts:
        reasons.update(count.reasons)
    for reason, number in reasons.most_common():
        console.print(f"  {number} x {reason}", highlight=False, markup=False)


def _share(counts: Mapping[str, int]) -> str:
    return f"{100 * counts['kept'] / counts['candidates']:.0f} %" if counts["candidates"] else DASH


def write_provenance(files: AnnotationFiles, config: DictConfig, clips: Sequence[Clip], setting: Setting) -> None:
    """Write what the annotations were made of; the same for the same clips, configuration and code."""
    digest = hashlib.sha256("\n".join(clip.model_dump_json(exclude={"views"}) for clip in clips).encode())
    teacher: Any = OmegaConf.to_container(config.teacher, resolve=True)
    facts = {
        "clips": str(config.clips),
        "clips_digest": digest.hexdigest()[:16],
        "num_clips": len(clips),
        "split": config.split,
        "seed": config.seed,
        "labels": setting.labels.name,
        "prompt_hash": setting.book.hash,
        "teacher": teacher,
        "git_commit": git_commit(Path(__file__).resolve().parents[1]),
    }
    with whole(files.provenance) as partial:
        partial.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line and annotate."""
    run_with_hydra(job, "annotate")


if __name__ == "__main__":
    main()
