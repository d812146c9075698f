"""What can be guessed without watching, and how much the film shows: see README.md beside this file.

pip install "scikit-learn>=1.5"
python -m experiments.leakage data/synthetic-<hash>/clips.jsonl --split val --out leakage.json
"""

import argparse
import json
from pathlib import Path

from experiments.leakage.examples import load_examples
from experiments.leakage.probes import PROBES, run_probes


def main() -> None:
    """Fit every probe on the train split and print what it reaches on another."""
    parser = argparse.ArgumentParser(description="What can be guessed without watching.")
    parser.add_argument("clips", type=Path, help="manifest of clips of the rendered world")
    parser.add_argument(
        "--split", choices=("val", "test"), default="val", help="val to choose settings, test once, last"
    )
    parser.add_argument("--only", nargs="*", choices=sorted(PROBES), help="kinds of probe to run")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    examples = load_examples(arguments.clips, ("train", arguments.split))
    report = run_probes(examples["train"], examples[arguments.split], arguments.only or list(PROBES))
    print(report.table())
    if arguments.out:
        arguments.out.write_text(json.dumps(report.as_json(), indent=1) + "\n")


if __name__ == "__main__":
    main()
