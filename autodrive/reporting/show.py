"""What a run ends with: tables in the terminal and `report.html`."""

from pathlib import Path

from rich.console import Console

from autodrive.evaluation.classification import class_indices, confusion_matrix
from autodrive.reporting.looking import HEADER, blindness, probe_rows, sampled_rows
from autodrive.reporting.run_page import FramesOf, write_run_page
from autodrive.reporting.terminal import print_confusion, print_scores, print_table, task_rows
from autodrive.runs.folder import RunFiles, read_run


def show_missing_page(run_dir: Path, frames_of: FramesOf, num_strips: int) -> None:
    """As `show_run`, for a finished run that was killed before its page was there; else nothing."""
    if not RunFiles(run_dir).page.is_file():
        show_run(run_dir, frames_of, num_strips)


def show_run(run_dir: Path, frames_of: FramesOf, num_strips: int) -> None:
    """Print the scores of direct answers, the classes' confusion matrix and what was set aside; write the run's page.

    Args:
        run_dir: A finished run's folder; everything that is shown is in it, but for the clips.
        frames_of: Gives a clip's frames and times.
        num_strips: Most misclassified clips on the page.
    """
    console = Console()
    run = read_run(run_dir)
    labels, headline = run.labels(), run.headline_task()
    direct = [p for p in run.predictions() if p.task == headline and p.mode == "direct"]
    if sentence := blindness(run.metrics, run.split()):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    if direct:
        true = class_indices([p.answer for p in direct], labels.names)
        predicted = class_indices([p.parsed for p in direct], labels.names)
        print_scores(run.metrics, labels, console, run.split())
        print_confusion(confusion_matrix(true, predicted, len(labels.names)), labels, console)
    else:  # beside the classes' table other tasks are told on the page; here they are all there is
        for task in run.other_tasks():
            if rows := task_rows(run.metrics, f"{run.split()}/{task}_"):
                print_table(f"{run.split()}: {task}", ("score", "value and 95 % interval"), rows, console)
    if probes := probe_rows(run.metrics, run.split()):
        print_table("does it look?", HEADER, probes, console)
    if sampled := sampled_rows(run.metrics, run.split()):
        print_table("drawn replies", ("score", "value and 95 % interval"), sampled, console)
    provenance = run.provenance()
    for line in (*provenance.get("set_aside", ()), *provenance.get("remarks", ())):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    page = write_run_page(run_dir, frames_of, num_strips)
    console.print(f"report: {page}", soft_wrap=True)
