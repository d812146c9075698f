"""What logging costs a run: how long it waited for its loggers, and how much they left in its folder.

python experiments/logging_cost.py outputs/train/<run> …
"""

import sys
from pathlib import Path
from typing import NamedTuple

from autodrive.entry_point import exit_with_line
from autodrive.errors import InputError
from autodrive.runs.folder import RunFiles, read_json


class Cost(NamedTuple):
    """What logging took of one run.

    Attributes:
        seconds: How long the run waited for all of its loggers.
        share: That time as a share of the whole run's.
        megabytes: What Weights & Biases keeps in the folder, to be synced or not (10**6 bytes).
    """

    seconds: float
    share: float
    megabytes: float


def cost(run: Path) -> Cost:
    """Read what a finished run says of its logging, and measure its files."""
    facts = read_json(RunFiles(run).provenance)
    if "logging_s" not in facts:
        raise InputError(f"{run}: no finished run of this version; give the folder that train.py or eval.py wrote")
    seconds = sum(facts["logging_s"].values())
    files = [file for file in (run / "wandb").rglob("*") if file.is_file() and not file.is_symlink()]
    return Cost(seconds, seconds / facts["time"]["total_s"], sum(file.stat().st_size for file in files) / 1e6)


def main() -> None:
    """Print one line per run folder of the command line."""
    for argument in sys.argv[1:]:
        try:
            found = cost(Path(argument))
        except InputError as error:
            exit_with_line(str(error))
        print(f"{argument}: {found.seconds:.1f} s, {100 * found.share:.2f} % of the run, {found.megabytes:.1f} MB")


if __name__ == "__main__":
    main()
