"""Evaluate a student on any manifest: a trained one, or a released or untrained one as it is (zero-shot).

python eval.py ckpt=outputs/train/<run>
python eval.py ckpt=outputs/train/<run> clips=my/clips.jsonl labels=event2
python eval.py student=cosmos_reason1_7b scale=paper ckpt=null clips=my/clips.jsonl
"""

import time
from pathlib import Path

import lightning as L
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from autodrive.config import check_values, register
from autodrive.entry_point import run_with_hydra
from autodrive.training.assembly import build_data_module, build_student, load_run_data, saved_student
from autodrive.training.evaluate import evaluate_student
from autodrive.training.process import share_cores
from autodrive.training.provenance import write_provenance
from autodrive.training.quiet import quiet_libraries
from autodrive.training.resume import config_hash, finished_metrics, save_config, with_run_config
from autodrive.training.show import show_run
from autodrive.training.sweep import run_job


def evaluate(config: DictConfig, run_dir: Path) -> dict[str, float]:
    """Evaluate one student on one split.

    Returns:
        The metrics that `metrics.json` holds; of a folder that holds this evaluation already, without doing it again.

    Raises:
        InputError: the configuration or an input is wrong, or the folder holds another finished run.
    """
    began = time.monotonic()
    quiet_libraries()
    share_cores(config.num_workers)
    check_values(config)
    done = finished_metrics(run_dir, config)
    save_config(config, run_dir)
    if done is not None:
        return done
    L.seed_everything(config.seed, verbose=False)
    data = load_run_data(config, needed=(config.split,), asked=("val", "test", config.split))
    student = build_student(config, data) if config.ckpt is None else saved_student(config, Path(config.ckpt))
    module = build_data_module(config, data, student)
    metrics = evaluate_student(config, student, data, module, config.split, run_dir)
    facts = {
        "config_hash": config_hash(config),
        "ckpt": config.ckpt,
        "data_fingerprint": data.selection.fingerprint,
        "clips_by_split_and_class": data.selection.counts(),
        "clips_dropped": len(data.selection.dropped),
        "annotations_set_aside": len(data.annotations_set_aside),
        "time": {"total_s": round(time.monotonic() - began, 1)},
    }
    write_provenance(run_dir, facts)
    show_run(config, run_dir, data, module.reader, metrics)
    return metrics


def main(config: DictConfig) -> dict[str, float] | None:
    """Evaluate once, or as one job of a sweep."""
    return run_job(evaluate, with_run_config(config, HydraConfig.get().overrides.task))


if __name__ == "__main__":
    register()
    run_with_hydra(main, "eval")
