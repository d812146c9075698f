"""The README.md of an exported student: what it is, what it scored, and what was verified."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from autodrive.counted import counted
from autodrive.runs.folder import RunFolder
from autodrive.students.bases import Base

# Licences that model hubs know by these names; others are written out.
OPEN_LICENCES = ("apache-2.0", "mit")
NO_BASE = "none: its weights were drawn at random and trained from nothing"


@dataclass(frozen=True)
class CardFacts:
    """What a model card says.

    Attributes:
        student: Name of the student's recipe.
        base: The checkpoint that training started from; None: there is none.
        licence: Identifier of the base's licence; None where it is not known here.
        manifest: What `export.json` holds.
        run: The run that trained it, with its scores.
        settings: How it was trained, key by key.
    """

    student: str
    base: Base | None
    licence: str | None
    manifest: Mapping[str, Any]
    run: RunFolder
    settings: Mapping[str, Any]


def model_card(facts: CardFacts) -> str:
    """The text, with the header that model hubs read."""
    is_adapter = facts.manifest["form"] == "adapter"
    is_local = facts.base is not None and Path(facts.base.source).is_dir()
    known = facts.licence in OPEN_LICENCES
    header = ModelCardData(
        base_model=None if facts.base is None or is_local else facts.base.source,
        base_model_relation="adapter" if is_adapter else "finetune",
        license=facts.licence if known or facts.licence is None else "other",
        license_name=None if known else facts.licence,
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="video-text-to-text",
        tags=["dashcam", "vlm-autodrive"],
    )
    base = NO_BASE
    if facts.base is not None:  # of a folder the name only: cards travel, and paths name people
        base = f"a checkpoint in a folder {Path(facts.base.source).name}" if is_local else facts.base.source
        base += f", revision {facts.base.revision}" if facts.base.revision else ""
        base += f", weights {facts.manifest['base_digest']}" if facts.manifest["base_digest"] else ""
    licence = facts.licence or ("none stated" if facts.base is None else "that of the base, which is not known here")
    verified, provenance = facts.manifest["verified"], facts.run.provenance()
    asked = f"{counted(verified['questions'], 'question')} about {counted(verified['clips'], 'clip')}"
    lines = [
        f"# {facts.student}, post-trained on dashcam video",
        "",
        f"- Base: {base}",
        f"- Licence: {licence}. Data may restrict the use of weights that were trained on them as well.",
        f"- Weights: {facts.manifest['form']}, {facts.manifest['dtype']}, digest {facts.manifest['weights_digest']}",
        f"- Data fingerprint: {provenance.get('data_fingerprint', 'not known')}",
        f"- Code: commit {provenance.get('git_commit') or 'not known'}",
        "",
        "## Training",
        "",
        *(f"- {key}: {value}" for key, value in facts.settings.items()),
        "",
        "## Scores",
        "",
        *_scores(facts.run),
        "",
        "## Verified",
        "",
        f"Read by {verified['read_by']} alone, in float32, it answers {asked} as the student does:",
        f"option log-probabilities differ by at most {verified['largest_difference']:.1e};",
        "the best options and the greedy replies are the same.",
    ]
    if verified["rounding"]:
        moved = f"Merging and rounding to {facts.manifest['dtype']} moved them by at most {verified['rounding']:.1e}."
        lines.append(moved)
    return f"---\n{header.to_yaml()}\n---\n\n" + "\n".join(lines) + "\n"


def _scores(run: RunFolder) -> list[str]:
    """The headline task's metrics, and of every other task its accuracy."""
    rows = []
    for key, value in run.metrics.items():
        low, high = run.metrics.get(f"{key}_ci_low"), run.metrics.get(f"{key}_ci_high")
        name = key.partition("/")[2]
        detail = any(name.startswith(f"{task}_") and name != f"{task}_accuracy" for task in run.other_tasks())
        if low is not None and high is not None and not detail:
            rows.append(f"| {key} | {value:.3f} | [{low:.3f}, {high:.3f}] |")
    return ["| metric | value | 95 % interval |", "|---|---|---|", *rows] if rows else ["Not evaluated."]
