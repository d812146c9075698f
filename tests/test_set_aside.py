"""What a run leaves out is on the terminal: before the work, under the table, and when a finished run is shown."""

import json
from pathlib import Path

import pytest
from running import run

from autodrive.datasets.manifest import load_clips
from autodrive.schema import Annotation, write_jsonl

CLIPS = "1 of 3 test clips set aside: 1 label_not_in_label_set ('Oops' 1)"
SHORT = ["fps=2", "num_workers=0", "evaluation.modes=[direct]", "evaluation.num_strips=0"]


def test_an_evaluation_says_what_it_sets_aside(
    smoke_run: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    test, train = ([clip for clip in load_clips(manifest) if clip.split == split] for split in ("test", "train"))
    clips = [test[0].model_copy(update={"label": "Oops"}), *test[1:3], train[0].model_copy(update={"label": "Oops"})]
    write_jsonl(tmp_path / "clips.jsonl", clips)
    captions = [
        Annotation.create(name, "caption", "?", "A van.", "source:people") for name in (test[1].id, "gone#0", "lost#0")
    ]
    write_jsonl(tmp_path / "captions.jsonl", captions)
    command = ["eval", f"ckpt={smoke_run}", f"clips={tmp_path / 'clips.jsonl'}", *SHORT, "questions=[rules,file]"]
    command += [f"questions.file.path={tmp_path / 'captions.jsonl'}", f"hydra.run.dir={tmp_path / 'run'}"]
    assert run(*command) == 0
    said = capsys.readouterr().out
    annotations = "2 annotations set aside: 2 unknown_clip; dropped.jsonl names each"
    before, table, under = said.partition("test: 2 clips of ")
    assert table
    for line in (CLIPS, annotations):
        assert line in before
        assert f"\n{line}\n" in under
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["set_aside"] == [CLIPS, annotations]
    assert run(*command) == 0
    again = capsys.readouterr().out
    assert "done already" in again
    assert CLIPS in again


def test_one_clip_is_one_clip(smoke_run: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Also of the train split, which an evaluation may take, whatever classes it lacks."""
    write_jsonl(tmp_path / "clips.jsonl", [clip for clip in load_clips(manifest) if clip.split == "train"][:1])
    command = ["eval", f"ckpt={smoke_run}", f"clips={tmp_path / 'clips.jsonl'}", *SHORT]
    assert run(*command, f"hydra.run.dir={tmp_path / 'empty'}") == 2
    assert "the test split is empty (split=train holds 1 clip); add test clips" in capsys.readouterr().err
    assert run(*command, "split=train", f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert "train: 1 clip of 1 source video, 95 % intervals" in capsys.readouterr().out
    assert "on 1 train clip of 1 source video." in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
