"""Train a student on dashcam clips and evaluate it on held-out ones.

python train.py                                      the embedded default, on a laptop
python train.py -m fps=1,15,30                       a sweep, with an ablation table at its end
python train.py clips=my/clips.jsonl labels=event2   your own manifest
"""

import time
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from autodrive.config import check_values, register
from autodrive.entry_point import run_with_hydra
from autodrive.mixture.epoch import EpochPlan
from autodrive.training.assembly import (
    RunData,
    build_data_module,
    build_student,
    check_student,
    epoch_plan,
    headline_answers,
    load_run_data,
)
from autodrive.training.callbacks import training_callbacks
from autodrive.training.evaluate import evaluate_student
from autodrive.training.process import keep_freed_memory, share_cores
from autodrive.training.provenance import cpu_seconds, write_provenance
from autodrive.training.quiet import quiet_libraries
from autodrive.training.resume import config_hash, finished_metrics, resume_checkpoint, resumed_config, save_config
from autodrive.training.schedules import validation_interval
from autodrive.training.show import show_run
from autodrive.training.sweep import run_job


def train(config: DictConfig, run_dir: Path) -> dict[str, float]:
    """One training run: data, student, fit, evaluation on the test split, report.

    Returns:
        The metrics that `metrics.json` holds; of a folder that holds this run already, without training again.

    Raises:
        InputError: the configuration or an input is wrong, or the folder holds another finished run.
    """
    began, cpu_began = time.monotonic(), cpu_seconds()
    quiet_libraries()
    share_cores(config.num_workers)
    keep_freed_memory()
    check_values(config)
    done = finished_metrics(run_dir, config)
    save_config(config, run_dir)
    if done is not None:
        return done
    check_student(config)  # before anything is rendered or prepared
    L.seed_everything(config.seed, verbose=False)
    data = load_run_data(config, needed=("train", "val", "test"))
    plan = epoch_plan(config, data)  # a wrong ratio is found before training starts
    student = build_student(config, data)
    module = build_data_module(config, data, student, plan)
    method = instantiate(config.method)(
        student=student,
        lr=config.lr,
        num_steps=config.num_steps,
        answers=headline_answers(data.clips["val"], data.writer.book),
    )
    loggers = [instantiate(logger, save_dir=str(run_dir)) for logger in (config.logger or {}).values()]
    checkpoint = resume_checkpoint(config, run_dir, data.selection.fingerprint)
    callbacks = training_callbacks(run_dir, config.batch_size)
    trainer = instantiate(
        config.trainer,
        max_steps=config.num_steps,
        val_check_interval=validation_interval(config.num_steps, config.trainer.val_check_interval),
        callbacks=list(callbacks),
        logger=loggers,
        default_root_dir=str(run_dir),
    )
    trainer.fit(method, module, ckpt_path=checkpoint)
    fitted = time.monotonic()
    callbacks.checkpoints.restore(method)
    student.save(run_dir / "checkpoints" / "student")
    metrics = evaluate_student(config, student, data, module, "test", run_dir)
    for logger in loggers:
        logger.log_metrics(metrics, step=trainer.global_step)
        logger.finalize("success")
    seconds = {"fit_s": fitted - began, "total_s": time.monotonic() - began, "cpu_s": cpu_seconds() - cpu_began}
    facts = _facts(config, data, plan, student, seconds) | {"throughput": callbacks.throughput.summary()}
    write_provenance(run_dir, facts)
    show_run(config, run_dir, data, module.reader, metrics)
    return metrics


def _facts(
    config: DictConfig, data: RunData, plan: EpochPlan, student: nn.Module, seconds: dict[str, float]
) -> dict[str, Any]:
    return {
        "config_hash": config_hash(config),
        "data_fingerprint": data.selection.fingerprint,
        "clips_by_split_and_class": data.selection.counts(),
        "clips_dropped": len(data.selection.dropped),
        "annotations_set_aside": len(data.annotations_set_aside),
        "mixture": {
            "unique_clips": plan.balanced.unique_clips,
            "visits_per_epoch": plan.visits_per_class(),
            "annotations_per_epoch": plan.annotations_per_epoch(),
            "annotations_per_visit": sum(plan.annotations_per_epoch().values()) / len(plan.visits),
        },
        "num_parameters": sum(parameter.numel() for parameter in student.parameters()),
        "num_steps": config.num_steps,
        "time": {name: round(value, 1) for name, value in seconds.items()},
    }


def main(config: DictConfig) -> dict[str, float] | None:
    """Train once, or as one job of a sweep: there, finished jobs are skipped and failures are recorded."""
    hydra = HydraConfig.get()
    return run_job(train, resumed_config(config, hydra.overrides.task, hydra.runtime.choices))


if __name__ == "__main__":
    register()
    run_with_hydra(main, "train")
