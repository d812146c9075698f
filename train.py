"""Train a student on dashcam clips and evaluate it on held-out ones.

python train.py                                      the embedded default, on a laptop
python train.py -m fps=1,15,30                       a sweep, with an ablation table at its end
python train.py clips=my/clips.jsonl labels=event2   your own manifest
python train.py mixture=table1 dry_run=true          what an epoch would teach, beside the paper's Table 1
python train.py strategy=ddp trainer.devices=2       the same steps, shared by two processes
"""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from autodrive.config import TrainConfig
from autodrive.entry_point import run_with_hydra
from autodrive.runs.job import run_job
from autodrive.runs.resume import resumed_config


def train(config: DictConfig, run_dir: Path) -> dict[str, float]:
    """One training run: data, student, fit, evaluation on the test split, report.

    Returns:
        The metrics that `metrics.json` holds; of a folder that holds this run already, without training again.

    Raises:
        InputError: The configuration or an input is wrong, or the folder holds another run.
    """
    # Imported here: they take seconds, and a wrong value is refused before them.
    from autodrive.assembly import (
        build_loaders,
        build_student,
        build_tracker,
        build_training,
        check_reply_lengths,
        check_training,
        check_trees,
        sharing_of,
        student_digest,
    )
    from autodrive.data_assembly import load_run_data
    from autodrive.exam_assembly import build_answerer, build_exam, frames_seen, retention_before, trained_student
    from autodrive.inference.evaluating import evaluate
    from autodrive.reporting.show import show_missing_page, show_run
    from autodrive.runs.frame import open_run
    from autodrive.tracking.exhibits import run_exhibits
    from autodrive.tracking.tracker import check_loggers

    with open_run(config, run_dir) as run:
        check_training(config, run.group)  # before anything is rendered or prepared
        check_loggers(config)
        data = load_run_data(config, needed=("train", "val", "test"))
        exam = build_exam(config, "test", run.group)
        elsewhere = sharing_of(config).reads_once and not run.group.leads
        student = build_student(config, data, elsewhere=elsewhere)
        done = run.begin(data.fingerprint, student_digest(config, student, run.group))
        if done is not None:
            if run.group.leads:
                show_missing_page(run_dir, frames_seen(config, data, student), config.evaluation.num_strips)
            return done
        loaders = build_loaders(config, data, student, run.group)
        training = build_training(config, data, student, loaders, run)
        lengths = check_reply_lengths(data, student)
        check_trees(config, student, loaders.smallest_training_clip, config.trainer.precision == "bf16-mixed")
        with build_tracker(config, run, "train", data, training) as tracker:
            before = retention_before(config, data, student, loaders, exam, run.files.retention_before)
            training.fit(run.files.student)
            run.lap("fit_s")
            trained = trained_student(config, student, run_dir, run.group)
            metrics = evaluate(build_answerer(config, trained, loaders, run.group), data, exam, run.files, before)
            tracker.finish(partial(run_exhibits, run.files, data, loaders.frames_of), training.trainer.global_step)
        run.facts = data.facts() | training.facts() | tracker.facts() | lengths
    if run.group.leads:
        show_run(run_dir, loaders.frames_of, config.evaluation.num_strips)
    return metrics


def tell_recipe(config: DictConfig, run_dir: Path) -> dict[str, float]:
    """A dry run: tell what a training would teach, of its records alone; it leaves no folder and has no metrics."""
    from autodrive.data_assembly import load_run_data
    from autodrive.reporting.recipe import print_recipe

    print_recipe(load_run_data(config, needed=("train", "val", "test"), dry=True))
    return {}


def job(config: DictConfig) -> dict[str, float] | None:
    """Train once, or as one job of a sweep: there, finished jobs are skipped and failures are recorded."""
    return run_job(tell_recipe if config.dry_run else train, config, TrainConfig)


def main() -> None:
    """Read the command line and train."""
    run_with_hydra(job, "train", resumed_config)


if __name__ == "__main__":
    main()
