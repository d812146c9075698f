"""Which of a run's many scores loggers get as single values, which way is better, and all of them as rows."""

from collections.abc import Iterable, Mapping, Sequence

from autodrive.tracking.tables import Rows

SCORES = ("accuracy", "binary_accuracy", "macro_f1", "average_precision", "parse_failures", "trace_emission_rate")
CLASS_SCORES = ("precision", "recall", "f1")
TASK_SCORES = ("accuracy", "rouge_l")
LOWER_IS_BETTER = frozenset({"loss", "parse_failures"})


def headline(metrics: Mapping[str, float], classes: Sequence[str], tasks: Sequence[str]) -> dict[str, float]:
    """The scores that runs are sorted and plotted by: a fifth of all keys, those that tables print.

    Args:
        metrics: All that `metrics.json` holds, of every mode.
        classes: Names of the run's classes.
        tasks: Names of its tasks beside the headline one.
    """
    wanted = [*SCORES, *(f"{name}_{score}" for name in classes for score in CLASS_SCORES)]
    wanted += [f"{name}_{score}" for name in tasks for score in TASK_SCORES]
    return {key: value for key, value in metrics.items() if key.partition("/")[2] in {*wanted, "n"}}


def goals(keys: Iterable[str]) -> dict[str, str]:
    """Whether each score is to be maximised or minimised, in the words of W&B's sweeps; other values are left out."""
    judged = (*SCORES, *CLASS_SCORES, *TASK_SCORES, *LOWER_IS_BETTER)
    scores = [key for key in keys if key.endswith(judged)]
    return {key: "minimize" if key.rpartition("/")[2] in LOWER_IS_BETTER else "maximize" for key in scores}


def score_rows(metrics: Mapping[str, float]) -> Rows:
    """Every score that has an interval, one a row: what `metrics.json` says in 140 keys."""
    rows = []
    for key, value in metrics.items():
        if f"{key}_ci_low" in metrics:
            prefix, _, score = key.partition("/")
            split, _, mode = prefix.partition("_")
            interval = metrics[f"{key}_ci_low"], metrics[f"{key}_ci_high"]
            rows.append([split, mode or "direct", score, value, *interval, metrics.get(f"{prefix}/n")])
    return Rows(("split", "mode", "score", "value", "low", "high", "n"), rows)
