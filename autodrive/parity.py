"""Says whether a student is the same elsewhere: behind a server, or in transformers' own classes.

python -m autodrive.parity ckpt=outputs/train/<run> base_url=http://localhost:8000/v1 model=<name>
python -m autodrive.parity ckpt=outputs/train/<run> against=transformers
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console

from autodrive.config import ParityConfig, check_config
from autodrive.counted import counted
from autodrive.entry_point import run_with_hydra
from autodrive.errors import InputError
from autodrive.reporting.terminal import print_table

if TYPE_CHECKING:
    from autodrive.exporting.parity import Parity

HEADER = ("clip", "prompt tokens", "score difference", "reply here", "reply there")
NO_SECONDS = "a server does not say when it takes frames to be; their times are in the prompt of some families only"


def compare_sides(config: DictConfig) -> "Parity":
    """Ask a run's student and the other side the same questions about the same clips.

    Raises:
        InputError: The run, its clips or a value are wrong, or the server refuses or does not reply.
    """
    # Imported here: they take seconds, and a wrong value is refused before them.
    from autodrive.exporting.parity import Pair, Parity, Said, lacking, without_runs
    from autodrive.exporting.verifying import answers_of, spoken, video_sizes
    from autodrive.run_assembly import build_examination
    from autodrive.runs.folder import RunFiles

    examination = build_examination(config)
    student, samples = examination.student, examination.samples
    answers = answers_of(student, examination.trees, examination.limits)
    if config.against == "server":
        from autodrive.exporting.served_side import served_side

        served, found, not_compared = instantiate(config.served), [], {"times of frames": NO_SECONDS}
        theirs = list(served_side(served.connect(), samples, examination.limits, served.form, served.sending))
    else:
        from autodrive.exporting.stock_side import stock_side

        theirs, found, not_compared = stock_side(
            student, RunFiles(Path(config.ckpt)).student, samples, answers, config.tolerance
        )
    sizes = {sample.clip_id: video_sizes(student, sample) for sample in samples}
    pairs: list[Pair] = []
    for answer, there in zip(answers, theirs, strict=True):
        tree, branch = answer.tree, answer.branch
        ids = [*tree.prefix_ids, *branch.ids]
        here = Said(spoken(student, answer), answer.scores or None, len(ids), without_runs(ids))
        pairs.append(Pair(tree.clip_id, branch.annotation_id, branch.mode, *sizes[tree.clip_id], here, there))
    if config.against == "server":
        not_compared |= lacking(pairs, "prompt tokens", lambda said: said.num_tokens, "the server counts none")
        not_compared |= lacking(pairs, "prompt ids", lambda said: said.ids, "the server has no tokenize endpoint")
        why = "the server gives no log-probabilities of whole options"
        not_compared |= lacking(pairs, "option scores", lambda said: said.scores, why)
    return Parity(pairs, config.tolerance, found, not_compared)


def show(parity: "Parity", config: DictConfig, console: Console) -> None:
    """Print replies side by side, what differs, what could not be compared, and whether the sides are the same."""
    rows = []
    for pair in parity.pairs[: config.num_shown]:
        counts = "/".join("?" if n is None else str(n) for n in (pair.ours.num_tokens, pair.theirs.num_tokens))
        difference = "" if pair.difference is None else f"{pair.difference:.1e}"
        rows.append((pair.clip_id, counts, difference, pair.ours.reply, pair.theirs.reply))
    questions = counted(len(parity.pairs), "question")
    print_table(f"{questions} about {counted(len({p.clip_id for p in parity.pairs}), 'clip')}", HEADER, rows, console)
    largest = parity.largest_difference
    scores = "not compared" if largest is None else f"differ by at most {largest:.1e}"
    console.print(f"replies equal: {100 * parity.equal_replies:.1f} %; option scores {scores}")
    for what, why in parity.not_compared.items():
        console.print(f"not compared: {what}: {why}", markup=False)
    for line in parity.differences():
        console.print(f"differs: {line}", markup=False)
    console.print("different" if parity.differences() else "same")


def job(config: DictConfig) -> dict[str, Any]:
    """Compare; the exit code is 0 where the sides are the same and 1 where they are different."""
    if config.against == "transformers":
        if config.base_url is not None:
            raise InputError("base_url: against=transformers asks no server; leave one of them out")
        config.served = None
    check_config(config, ParityConfig)
    from autodrive.runs.machine import quiet_libraries

    quiet_libraries()
    parity = compare_sides(config)
    show(parity, config, Console(soft_wrap=True, highlight=False))
    record = parity.record()
    if config.out is not None:
        out = Path(config.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if not record["same"]:
        sys.exit(1)
    return record


def main() -> None:
    """Read the command line and compare."""
    run_with_hydra(job, "parity")


if __name__ == "__main__":
    main()
