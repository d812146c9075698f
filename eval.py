"""Evaluate a student on any manifest: a trained one, or a released, untrained or served one as it is (zero-shot).

python eval.py ckpt=outputs/train/<run>
python eval.py ckpt=outputs/train/<run> clips=my/clips.jsonl labels=event2
python eval.py student=cosmos_reason1_7b scale=paper questions=rules ckpt=null clips=my/clips.jsonl
python eval.py student=endpoint base_url=http://localhost:8000/v1 model=<name> questions=rules clips=my/clips.jsonl
"""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from autodrive.config import EvalConfig
from autodrive.entry_point import run_with_hydra
from autodrive.runs.job import run_job
from autodrive.runs.resume import evaluated_config


def evaluate(config: DictConfig, run_dir: Path) -> dict[str, float]:
    """Evaluate one student on one split.

    Returns:
        The metrics that `metrics.json` holds; of a folder that holds this evaluation already, without doing it again.
        Of a dry run, which leaves no folder, nothing.

    Raises:
        InputError: The configuration or an input is wrong, or the folder holds another run.
    """
    # Imported here: they take seconds, and a wrong value is refused before them.
    from autodrive.data_assembly import load_run_data

    load = partial(load_run_data, config, needed=(config.split,), asked=("val", "test", config.split))
    if config.dry_run:
        from autodrive.reporting.recipe import print_recipe

        print_recipe(load(dry=True))
        return {}
    from autodrive.assembly import build_tracker
    from autodrive.exam_assembly import build_exam, build_examinee, examinee_digest, frames_seen, ready_to_answer
    from autodrive.inference.evaluating import evaluate as evaluate_student
    from autodrive.reporting.show import show_missing_page, show_run
    from autodrive.runs.frame import open_run
    from autodrive.tracking.exhibits import run_exhibits
    from autodrive.tracking.tracker import check_loggers

    with open_run(config, run_dir) as run:
        check_loggers(config)
        data = load()
        examinee = build_examinee(config, data, run.group)
        done = run.begin(data.fingerprint, examinee_digest(config, examinee, run.group))
        if done is not None:
            if run.group.leads:
                show_missing_page(run_dir, frames_seen(config, data, examinee), config.evaluation.num_strips)
            return done
        exam = build_exam(config, config.split, run.group)
        answerer = ready_to_answer(config, data, examinee, exam)
        with build_tracker(config, run, "eval", data) as tracker:
            metrics = evaluate_student(answerer, data, exam, run.files)
            tracker.finish(partial(run_exhibits, run.files, data, answerer.frames_of))
        run.facts = data.facts() | tracker.facts() | answerer.facts() | {"ckpt": config.ckpt}
    if run.group.leads:
        show_run(run_dir, answerer.frames_of, config.evaluation.num_strips)
    return metrics


def job(config: DictConfig) -> dict[str, float] | None:
    """Evaluate once, or as one job of a sweep."""
    return run_job(evaluate, config, EvalConfig)


def main() -> None:
    """Read the command line and evaluate."""
    run_with_hydra(job, "eval", evaluated_config)


if __name__ == "__main__":
    main()
