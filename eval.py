"""Evaluate a student on any manifest: a trained one, or a released or untrained one as it is (zero-shot).

python eval.py ckpt=outputs/train/<run>
python eval.py ckpt=outputs/train/<run> clips=my/clips.jsonl labels=event2
python eval.py student=cosmos_reason1_7b scale=paper ckpt=null clips=my/clips.jsonl
"""

from pathlib import Path

from omegaconf import DictConfig

from autodrive.entry_point import run_with_hydra
from autodrive.runs.frame import open_run
from autodrive.runs.job import run_job
from autodrive.runs.resume import evaluated_config
from autodrive.training.assembly import build_data_module, build_student, load_run_data, saved_student
from autodrive.training.evaluate import evaluate_student
from autodrive.training.show import show_run


def evaluate(config: DictConfig, run_dir: Path) -> dict[str, float]:
    """Evaluate one student on one split.

    Returns:
        The metrics that `metrics.json` holds; of a folder that holds this evaluation already, without doing it again.

    Raises:
        InputError: the configuration or an input is wrong, or the folder holds another finished run.
    """
    with open_run(config, run_dir) as run:
        if run.finished is not None:
            return run.finished
        data = load_run_data(config, needed=(config.split,))
        student = build_student(config, data) if config.ckpt is None else saved_student(config, Path(config.ckpt))
        module = build_data_module(config, data, student)
        metrics = evaluate_student(config, student, data, module, config.split, run_dir)
        run.facts = {
            "ckpt": config.ckpt,
            "data_fingerprint": data.selection.fingerprint,
            "clips_by_split_and_class": data.selection.counts(),
            "clips_dropped": len(data.selection.dropped),
        }
    show_run(config, run_dir, data, module.reader, metrics)
    return metrics


def job(config: DictConfig) -> dict[str, float] | None:
    """Evaluate once, or as one job of a sweep."""
    return run_job(evaluate, config)


def main() -> None:
    """Read the command line and evaluate."""
    run_with_hydra(job, "eval", evaluated_config)


if __name__ == "__main__":
    main()
