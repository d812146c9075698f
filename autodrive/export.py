"""Exports a run's student to plain files, and verifies them: transformers or peft alone must answer as it does.

python -m autodrive.export ckpt=outputs/train/<run> out=exported
python -m autodrive.export ckpt=outputs/train/<run> out=adapter form=adapter
"""

import importlib.metadata
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from xxhash import xxh3_128

from autodrive.config import ExportConfig, check_config
from autodrive.counted import counted
from autodrive.entry_point import run_with_hydra
from autodrive.errors import InputError
from autodrive.runs.folder import read_run
from autodrive.schema import Mode
from autodrive.whole_files import whole

if TYPE_CHECKING:
    from autodrive.exporting.checkpoint import ExportFormat
    from autodrive.students.student import Student
    from autodrive.trees.clip_tree import ClipTree

MANIFEST, CARD = "export.json", "README.md"
LIBRARIES = ("transformers", "peft", "torch", "vlm-autodrive")
# What a model card says of the training, where the run's configuration has it.
SETTINGS = ("fps", "num_frames", "duration_s", "resolution", "lr", "batch_size", "num_steps", "rank", "seed")


def export(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Write a run's student into an empty folder and verify what is there.

    Returns:
        What `export.json` holds.

    Raises:
        InputError: The run, its clips or a value are wrong.
        UnverifiedError: Plain libraries make something else of the files.
    """
    # Imported here: they take seconds, and a wrong value is refused before them.
    from autodrive.exporting.checkpoint import ExportFormat
    from autodrive.exporting.model_card import CardFacts, model_card
    from autodrive.inference.answering import weights_digest
    from autodrive.released.configurations import released_at
    from autodrive.run_assembly import build_examination

    examination = build_examination(config)
    run, student, trees, limits = examination.run, examination.student, examination.trees, examination.limits
    form = ExportFormat(config.form, config.dtype)
    form.check(student)
    adapter, trained_from = student.adapter_name(), instantiate(run.student).base()
    # An adapter says something on its own base only, which may be another run's student.
    base = student.base if form.form == "adapter" else trained_from
    manifest: dict[str, Any] = {
        "form": form.form,
        "dtype": form.name_for(student),
        "student": student.name,
        "adapter": adapter,
        "weights_digest": weights_digest(student),
        "base_digest": base.digest() if form.form == "adapter" and base is not None else None,
    }
    manifest["verified"] = _written_and_verified(student, form, folder, trees, limits)
    manifest["versions"] = {name: importlib.metadata.version(name) for name in LIBRARIES}
    manifest["files"] = {path.name: xxh3_128(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    choices = {key: run[key] for key in SETTINGS if run.get(key) is not None}
    known = released_at(trained_from.source) if trained_from else None
    facts = CardFacts(
        student=student.name,
        base=base,
        licence=known and known.licence,
        manifest=manifest,
        run=read_run(Path(config.ckpt)),
        settings=choices | {"adapter": adapter or "none, all weights were trained"},
    )
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(model_card(facts), encoding="utf-8")
    return manifest


def _written_and_verified(
    student: "Student",
    form: "ExportFormat",
    folder: Path,
    trees: "list[ClipTree]",
    limits: Mapping[str, Mapping[Mode, int]],
) -> dict[str, Any]:
    """Ask the student, write it, and ask what a plain library reads; the student is of no use afterwards."""
    from autodrive.exporting.checkpoint import read_plainly, round_weights, write_checkpoint
    from autodrive.exporting.verifying import (
        MOST_DIFFERENCE,
        UnverifiedError,
        answers_of,
        compare,
        compare_with_stock,
        plain_sequences,
    )
    from autodrive.students.student import DTYPES

    trained = answers = answers_of(student, trees, limits)
    rounding = None
    if form.form == "merged":
        round_weights(student, DTYPES[form.name_for(student)])
        answers = answers_of(student, trees, limits)
        moved = compare(trained, answers)
        rounding = moved.largest
        if moved.other_best:
            message = f"merged and rounded to {form.name_for(student)}, the student prefers another option"
            raise UnverifiedError(f"{message} in {counted(moved.other_best, 'question')}; try dtype=float32")
    sequences = plain_sequences(student, answers)
    device = next(student.parameters()).device
    write_checkpoint(student, folder, form)
    base = None if form.form == "merged" or student.base is None else str(student.base.folder())
    student.to("cpu")  # one model at a time on the device
    found = compare_with_stock(read_plainly(folder, base, device), sequences, answers)
    if not found.largest <= MOST_DIFFERENCE or found.other_best or found.other_replies:  # nan is not below
        raise UnverifiedError(
            f"read by plain libraries, option log-probabilities differ by {found.largest:.2g} (at most "
            f"{MOST_DIFFERENCE:g} is rounding), {found.other_best} of the best options and "
            f"{found.other_replies} of the replies differ"
        )
    return {
        "read_by": "transformers" if base is None else "transformers and peft",
        "clips": len(trees),
        "clip_ids": [tree.clip_id for tree in trees],
        "questions": len(answers),
        "options": sum(len(answer.scores) for answer in answers),
        "largest_difference": found.largest,
        "rounding": rounding,
    }


def job(config: DictConfig) -> dict[str, Any]:
    """Export; a folder that cannot be verified is not left behind, and the exit code is 1."""
    check_config(config, ExportConfig)
    from autodrive.exporting.verifying import UnverifiedError
    from autodrive.runs.machine import quiet_libraries

    quiet_libraries()
    out = Path(config.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"out={out}: holds something already; give another folder, or remove it")
    try:
        with whole(out) as partial:
            partial.mkdir()
            manifest = export(config, partial)
    except UnverifiedError as error:
        print(f"error: not exported: {error}", file=sys.stderr)
        sys.exit(1)
    verified, console = manifest["verified"], Console(soft_wrap=True)
    console.print(f"exported {manifest['student']} ({manifest['form']}, {manifest['dtype']}) to {out}")
    asked = f"{counted(verified['questions'], 'question')} about {counted(verified['clips'], 'clip')}"
    console.print(
        f"verified with {verified['read_by']} alone on {asked}: largest difference of an option's log-probability "
        f"{verified['largest_difference']:.1e}, best options and replies the same"
    )
    if verified["rounding"]:
        console.print(f"merging and rounding to {manifest['dtype']} moved them by at most {verified['rounding']:.1e}")
    return manifest


def main() -> None:
    """Read the command line and export."""
    run_with_hydra(job, "export")


if __name__ == "__main__":
    main()
