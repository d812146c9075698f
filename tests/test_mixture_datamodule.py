"""Which clips and questions a run's loaders hold, on the smoke run's own data."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autodrive.assembly import build_loaders, saved_student
from autodrive.data_assembly import load_run_data
from autodrive.mixture.datamodule import ClipTreeDataModule
from autodrive.runs.folder import run_config
from autodrive.trees.clip_tree import TreeRow


@pytest.fixture(scope="module")
def loaders(smoke_run: Path) -> ClipTreeDataModule:
    config = run_config(smoke_run)
    data = load_run_data(config, needed=("val", "test"))
    return build_loaders(config, data, saved_student(config, smoke_run))


def asked(loaders: ClipTreeDataModule, batches) -> set[tuple[str, str]]:
    """Task and mode of all that is asked."""
    tasks = {id_: question.task for clips in loaders.clips.values() for c in clips for id_, question in c.questions()}
    rows: list[TreeRow] = [row for batch in batches for row in batch]
    return {(tasks[span.annotation_id], span.mode) for row in rows for span in row.spans}


def test_a_checkpoint_is_chosen_by_direct_answers_to_the_headline_task(loaders: ClipTreeDataModule):
    assert asked(loaders, loaders.val_dataloader()) == {("mcq", "direct")}
    others = [
        replace(c, by_source={name: found for name, found in c.by_source.items() if found[0].task != "mcq"})
        for c in loaders.clips["val"]
    ]
    without = ClipTreeDataModule(
        {**loaders.clips, "val": others}, None, loaders.reader, loaders.writer, loaders.batching, 1
    )
    assert asked(without, without.val_dataloader()) == {("closed_qa", "direct")}


def test_questions_are_those_of_the_tasks_and_modes_that_are_wanted(loaders: ClipTreeDataModule):
    both = ("direct", "reasoning")
    all_of_them = {(task, mode) for task in ("mcq", "closed_qa") for mode in both}
    assert asked(loaders, loaders.question_dataloader("test", both)) == all_of_them
    assert asked(loaders, loaders.question_dataloader("test", both, ("mcq",))) == {("mcq", mode) for mode in both}
    # Captions have no options, and so no words for reasoning: nothing is asked of clips that have nothing else.
    book = loaders.writer.book
    assert "reasoning" not in book["caption"].modes
    assert len(loaders.question_dataloader("test", ("reasoning",), ("caption",))) == 0


def test_the_frames_of_a_clip_are_its_own(loaders: ClipTreeDataModule):
    shown = [loaders.frames_of(c.clip.id) for c in loaders.clips["test"]]
    for (frames_THWC, timestamps_s), member in zip(shown, loaders.clips["test"], strict=True):
        own = loaders.reader.read(member.clip).frames
        assert np.array_equal(frames_THWC, own.frames_TCHW.permute(0, 2, 3, 1).numpy())
        assert np.array_equal(timestamps_s, own.timestamps_s.numpy())
    assert len({frames.tobytes() for frames, _ in shown}) == len(shown)
