"""Do the tests notice? Changes one expression at a time and runs the tests that should fail (mutmut).

pip install "mutmut>=3.8"
python experiments/mutation/mutate.py evaluation sampler mixture --out=mutation
python experiments/mutation/mutate.py training runs --sample=150 --out=mutation

`parts.yaml` says which files a part changes and which tests are run. The work happens in a copy of the repository, so
that the checkout stays as it is and other work can go on in it. Prints the score of each part, and writes every mutant
that no test noticed as a diff to `<out>/<part>.txt`. With --sample so many mutants of a part are run, drawn with a
fixed seed, and the share that is noticed comes with its 95 % interval (Wilson's).
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from autodrive.evaluation.intervals import wilson_interval

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]


def copy_of_repository(part: Mapping[str, Sequence[str]], scratch: Path) -> None:
    """Copy all files that git knows, with mutmut's settings of one part in pyproject.toml."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    shutil.rmtree(scratch, ignore_errors=True)
    for name in (name for name in listed if name and (REPOSITORY / name).is_file()):
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, scratch / name)
    settings: dict[str, object] = {
        "source_paths": ["autodrive"],
        "only_mutate": list(part["mutate"]),
        "also_copy": ["conf", "docs", "experiments", "eval.py", "train.py"],
        "pytest_add_cli_args": ["-n", "0", "-p", "no:cacheprovider", "-p", "no:randomly"],
        "pytest_add_cli_args_test_selection": list(part["tests"]),
        "process_isolation": "forkserver",  # torch is not safe to fork once tests have run in it
        "timeout_constant": 180.0,  # seconds; a busy machine is no infinite loop
        "use_git_change_detection": False,
    }
    with (scratch / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write("\n[tool.mutmut]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))


def environment() -> dict[str, str]:
    """The environment of mutmut and its tests: the copy's own modules, one torch thread."""
    ours = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return ours | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}


def mutmut(scratch: Path, *arguments: str) -> str:
    """Run mutmut in the copy and return what it prints."""
    command = [sys.executable, "-m", "mutmut", *arguments]
    ended = subprocess.run(command, cwd=scratch, env=environment(), capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(f"{' '.join(command)} in {scratch} failed:\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}")
    return ended.stdout


def sampled(scratch: Path, count: int) -> list[str]:
    """Names of `count` mutants of the copy, drawn with seed 0; all of them where there are no more."""
    # mutmut names its mutants once a run has made them: one that is asked for none makes them, and stops there.
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", "none"]
    made = subprocess.run(command, cwd=scratch, env=environment(), capture_output=True, text=True)
    if "nothing matches" not in made.stderr:
        sys.exit(f"{' '.join(command)} in {scratch} failed:\n{made.stdout[-3000:]}\n{made.stderr[-3000:]}")
    names = [line.split(":")[0].strip() for line in mutmut(scratch, "results", "--all", "true").splitlines()]
    return random.Random(0).sample(names, min(count, len(names)))


def main() -> None:
    """Mutate the parts one after the other, one mutant at a time."""
    parts = yaml.safe_load((HERE / "parts.yaml").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description="Changes one expression at a time and runs the tests.")
    parser.add_argument("parts", nargs="+", choices=list(parts))
    parser.add_argument("--out", type=Path, default=Path("mutation"))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--sample", type=int, help="run so many mutants of a part, drawn with a fixed seed")
    arguments = parser.parse_args()
    for name in arguments.parts:
        scratch = (arguments.out / f"{name}_copy").resolve()
        copy_of_repository(parts[name], scratch)
        chosen = sampled(scratch, arguments.sample) if arguments.sample else []
        mutmut(scratch, "run", "--max-children", str(arguments.processes), *chosen)
        found = [line.split(": ") for line in mutmut(scratch, "results", "--all", "true").splitlines() if ": " in line]
        by_status: dict[str, list[str]] = defaultdict(list)
        for mutant, status in found:
            by_status[status.strip()].append(mutant.strip())
        run = sum(len(mutants) for status, mutants in by_status.items() if status != "not checked")
        noticed = len(by_status["killed"]) + len(by_status["timeout"])
        missed = by_status["survived"] + by_status["no tests"]
        (arguments.out / f"{name}.txt").write_text("\n".join(mutmut(scratch, "show", mutant) for mutant in missed))
        interval = wilson_interval(noticed, run)
        print(f"{name}: {noticed} of {run} run of {len(found)} noticed, {noticed / run:.2f} {interval}; ", end="")
        others = {status: len(mutants) for status, mutants in sorted(by_status.items()) if status != "not checked"}
        print(f"{others}: {arguments.out / f'{name}.txt'}", flush=True)


if __name__ == "__main__":
    main()
