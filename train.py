"""Train a student on dashcam clips and evaluate it on held-out ones.

python train.py                                      the embedded default, on a laptop
python train.py -m fps=1,15,30                       a sweep, with an ablation table at its end
python train.py clips=my/clips.jsonl labels=event2   your own manifest
"""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from autodrive.entry_point import run_with_hydra
from autodrive.runs.frame import open_run
from autodrive.runs.job import run_job
from autodrive.runs.resume import resume_checkpoint, resumed_config
from autodrive.training.assembly import (
    build_data_module,
    build_student,
    check_student,
    load_run_data,
    mcq_answers,
)
from autodrive.training.callbacks import training_callbacks
from autodrive.training.evaluate import evaluate_student
from autodrive.training.schedules import validation_interval
from autodrive.training.show import show_run


def train(config: DictConfig, run_dir: Path) -> dict[str, float]:
    """One training run: data, student, fit, evaluation on the test split, report.

    Returns:
        The metrics that `metrics.json` holds; of a folder that holds this run already, without training again.

    Raises:
        InputError: the configuration or an input is wrong, or the folder holds another finished run.
    """
    with open_run(config, run_dir) as run:
        if run.finished is not None:
            return run.finished
        check_student(config)  # before anything is rendered or prepared
        data = load_run_data(config, needed=("train", "val", "test"))
        student = build_student(config, data)
        module = build_data_module(config, data, student)
        method = instantiate(config.method)(
            student=student,
            optimizer=instantiate(config.optimizer),
            schedule=instantiate(config.schedule),
            answers=mcq_answers(data.clips["val"]),
        )
        loggers = [instantiate(logger, save_dir=str(run_dir)) for logger in (config.logger or {}).values()]
        checkpoint = resume_checkpoint(config.resume, run.files, data.selection.fingerprint)
        callbacks = training_callbacks(run.files, config.batch_size)
        trainer = instantiate(
            config.trainer,
            max_steps=config.num_steps,
            val_check_interval=validation_interval(config.num_steps, config.trainer.val_check_interval),
            callbacks=list(callbacks),
            logger=loggers,
            default_root_dir=str(run_dir),
        )
        trainer.fit(method, module, ckpt_path=checkpoint and str(checkpoint))
        run.lap("fit_s")
        callbacks.checkpoints.restore(method)
        student.save(run.files.student)
        metrics = evaluate_student(config, student, data, module, "test", run_dir)
        for logger in loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
            logger.finalize("success")
        plan = data.mixture.plan_visits(data.clips["train"], config.seed)
        run.facts = {
            "data_fingerprint": data.selection.fingerprint,
            "clips_by_split_and_class": data.selection.counts(),
            "clips_dropped": len(data.selection.dropped),
            "mixture": {
                "unique_clips": plan.unique_clips,
                "visits_per_epoch": plan.visits_per_class,
                "annotations_per_visit": data.mixture.annotations_per_visit(data.clips["train"], plan.visits),
            },
            "num_parameters": sum(parameter.numel() for parameter in student.parameters()),
            "num_steps": config.num_steps,
            "throughput": callbacks.throughput.summary(),
        }
    show_run(config, run_dir, data, module.reader, metrics)
    return metrics


def job(config: DictConfig) -> dict[str, float] | None:
    """Train once, or as one job of a sweep: there, finished jobs are skipped and failures are recorded."""
    return run_job(train, config)


def main() -> None:
    """Read the command line and train."""
    run_with_hydra(job, "train", resumed_config)


if __name__ == "__main__":
    main()
