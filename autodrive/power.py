"""Says before any run which difference in accuracy a comparison can find, by the rule that will judge it.

python -m autodrive.power num_clips=900 num_seeds=3
python -m autodrive.power num_clips=198 num_seeds=1 trained=false accuracy=0.41
"""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from autodrive.config import PowerConfig, check_config
from autodrive.counted import counted
from autodrive.entry_point import run_with_hydra
from autodrive.errors import InputError


def power(config: DictConfig) -> dict[str, Any]:
    """Simulate tables and print what is found in them.

    Returns:
        What is printed: `smallest_difference` as a fraction (None: none is found), and `called_different`, the share
        of tables in which a step between equal rows is called a difference.

    Raises:
        InputError: The rule would not test such a comparison.
    """
    check_config(config, PowerConfig)
    # Imported here: they take seconds, and a wrong value is refused before them.
    from autodrive.evaluation.paired_test import LEVEL, MIN_SEEDS, POWER
    from autodrive.evaluation.power import Study, share_found, smallest_difference

    if config.trained and config.num_seeds < MIN_SEEDS:
        why = "one run says nothing about what another seed would change, so it is not tested"
        raise InputError(f"num_seeds={config.num_seeds}: {why}; give num_seeds=2 or more, or trained=false")
    if config.num_clips <= config.clips_per_video:
        why = "all clips are of one source video, so nothing is tested"
        raise InputError(f"num_clips={config.num_clips}: {why}; give more, or fewer clips_per_video")
    study = Study(config.num_clips, config.num_seeds, config.clips_per_video, config.seed_spread, config.trained)
    how = (config.num_steps, config.num_tables, config.seed)
    smallest = smallest_difference(study, config.accuracy, *how)
    by_chance = share_found(study, config.accuracy, 0.0, *how)
    videos = counted(int(study.videos()[-1]) + 1, "source video")
    rows = counted(config.num_seeds, "seed") + " a row" if config.trained else "models as they are"
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{counted(config.num_clips, 'clip')} of {videos}, {rows}, {counted(config.num_steps, 'step')}")
    found = "no difference" if smallest is None else f"a difference of {100 * smallest:.1f} points in accuracy"
    console.print(f"{found} is found in {100 * POWER:.0f} % of tables (p < {LEVEL:g} after Holm's correction)")
    console.print(f"equal rows are called different in {100 * by_chance:.1f} % ({config.num_tables} tables simulated)")
    record: dict[str, Any] = {"smallest_difference": smallest, "called_different": by_chance}
    record |= {str(key): value for key, value in config.items()}
    if config.out is not None:
        out = Path(config.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def main() -> None:
    """Read the command line and simulate."""
    run_with_hydra(power, "power")


if __name__ == "__main__":
    main()
