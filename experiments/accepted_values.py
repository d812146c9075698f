"""Do the values that the checks accept end in a finished run, or in one line?

PYTHONPATH=.:tests python experiments/accepted_values.py --out=accepted_values

`tests/test_wrong_values.py` gives every key of every verb what no run can work with, and asks for a line that names the
key. Some of it is accepted: half a frame per second, a weight decay of 0, a folder called abc. This trains (and
evaluates, or predicts) with each of those, in seconds on a tiny world, and lists what ended in a traceback.
"""

import argparse
import contextlib
import io
import os
import tempfile
from collections import defaultdict
from pathlib import Path

from running import run, tiny
from test_wrong_values import COMMANDS, WRONG, Command, outcomes

MANY_KINDS = 6  # a key that takes this many kinds takes any text, and is tried with one


def accepted(command: Command) -> list[tuple[str, str]]:
    """Keys with a value each that the checks accept, as the command line writes it."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for case, line in outcomes(command):
        if line is None:
            key, _, kind = case.rpartition("=")
            kinds[key].append(kind)
    cases = []
    for key, found in kinds.items():
        for kind in found[:1] if len(found) >= MANY_KINDS else found:
            value = WRONG[kind]
            written = {None: "null", True: "true", "": "''"}.get(value) if not isinstance(value, list | dict) else None
            cases.append((key, str(value) if written is None else written))
    return cases


def ended(verb: str, arguments: list[str]) -> str:
    """How a command ended: `finished`, its line, or the exception it raised."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = run(verb, *arguments)
    except Exception as error:
        return f"TRACEBACK {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    lines = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
    return "finished" if code == 0 else f"exit {code}: {lines[-1] if lines else 'NO LINE'}"


def main() -> None:
    """Try every accepted value once."""
    parser = argparse.ArgumentParser(description="Runs what the checks accept.")
    parser.add_argument("--out", type=Path, default=Path("accepted_values"))
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    base = tiny(out / "world", **{"evaluation.modes": "[direct]"})
    run_dir = out / "base"
    if not (run_dir / "provenance.json").is_file():
        assert run("train", *base, f"hydra.run.dir={run_dir}") == 0
    video = next((out / "world").rglob("*.mp4"))
    needed = {"predict": [f"video={video}", f"ckpt={run_dir}"], "prepare": [f"source={video.parent}"]}
    os.chdir(tempfile.mkdtemp(dir=out))  # folders that are called 0 or abc are made here
    results = (out / "results.txt").open("w", encoding="utf-8")
    for command in COMMANDS:
        if command.verb not in ("train", *needed):
            continue
        given = [*base, *command.given] if command.verb == "train" else needed[command.verb]
        for key, value in accepted(command):
            with tempfile.TemporaryDirectory(dir=out) as fresh:
                folder = f"{'hydra.run.dir' if command.verb == 'train' else 'out'}={Path(fresh) / 'run'}"
                line = ended(command.verb, [*given, folder, f"{key}={value}"])
            print(f"{command.verb} {' '.join(command.given)} {key}={value}: {line}", file=results, flush=True)
    results.close()
    lines = (out / "results.txt").read_text(encoding="utf-8").splitlines()
    wrong = [line for line in lines if "TRACEBACK" in line or "NO LINE" in line]
    print(f"{len(lines)} accepted values: {sum(line.endswith(': finished') for line in lines)} finished, ", end="")
    print(f"{len(wrong)} without a line of their own\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
