"""`questions=retention`: what a student could do is asked apart, before and after a training that starts from it."""

import json
from pathlib import Path

import pytest
from running import composed, run, tiny

from autodrive.schema import Annotation, Prediction, read_jsonl, write_jsonl


@pytest.fixture(scope="module")
def continued(smoke_run: Path, world_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hard steps from the smoke run's student, with retention asked in direct mode and scores by light."""
    folder = tmp_path_factory.mktemp("retention") / "run"
    changes = {"questions": "retention", "evaluation.modes": "[direct]", "evaluation.slices": "[light,scenario]"}
    start = {"student_from": smoke_run, "student": "tiny_qwen2_5_vl", "trainer.val_check_interval": 2}
    arguments = tiny(world_dir, num_steps=2, lr=1e-2, mixture="mcq", **changes, **start)
    assert run("train", *arguments, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def metrics(continued: Path) -> dict[str, float]:
    return json.loads((continued / "metrics.json").read_text())


def test_before_and_after_are_asked_the_same(continued: Path, metrics: dict[str, float]):
    before, after = (read_jsonl(continued / f"{name}.jsonl", Prediction) for name in ("retention_before", "retention"))
    assert [(p.annotation_id, p.question, p.answer) for p in before] == [
        (p.annotation_id, p.question, p.answer) for p in after
    ]
    assert {p.task for p in before} == {"caption", "closed_qa"}
    assert {p.weights_digest for p in before}.isdisjoint({p.weights_digest for p in after})
    for name in ("caption_rouge_l", "closed_qa_accuracy", "caption_rouge_l_ci_low"):
        assert 0 <= metrics[f"retention_before/{name}"] <= 1
        assert 0 <= metrics[f"retention/{name}"] <= 1
    captions = [p for p in after if p.task == "caption"]
    assert any(p.other_answers for p in captions)  # two references of a clip, asked once
    assert len({(p.clip_id, p.question) for p in captions}) == len(captions)


def test_before_is_what_evaluation_finds_of_the_student(smoke_run: Path, metrics: dict[str, float], tmp_path: Path):
    arguments = [f"ckpt={smoke_run}", "questions=retention", "evaluation.modes=[direct]", "logger=none"]
    assert run("eval", *arguments, f"hydra.run.dir={tmp_path}") == 0
    found = json.loads((tmp_path / "metrics.json").read_text())
    theirs = {k.partition("/")[2]: v for k, v in found.items() if k.startswith("retention/")}
    ours = {k.partition("/")[2]: v for k, v in metrics.items() if k.startswith("retention_before/")}
    assert theirs == pytest.approx(ours)
    assert not any(key.startswith("retention_before") for key in found)


def test_questions_of_retention_are_not_scored_among_the_others(continued: Path, metrics: dict[str, float]):
    asked = read_jsonl(continued / "predictions.jsonl", Prediction)
    assert {p.task for p in asked} == {"mcq", "closed_qa"}
    assert not any(key.startswith("test/caption") for key in metrics)


def test_parts_of_the_clips_are_scored_apart_and_add_up(continued: Path, metrics: dict[str, float]):
    for key in ("light", "scenario"):
        sizes = {k: v for k, v in metrics.items() if k.startswith(f"test/{key}_") and k.endswith("_n")}
        assert sum(sizes.values()) == metrics["test/n"]
        right = sum(metrics[k.removesuffix("_n") + "_accuracy"] * n for k, n in sizes.items())
        assert right == pytest.approx(metrics["test/accuracy"] * metrics["test/n"])
    page = (continued / "report.html").read_text()
    assert "By light" in page
    assert "What it could do before" in page


def test_questions_of_ones_own_are_asked(continued: Path, smoke_run: Path, manifest: Path, tmp_path: Path):
    asked = [p for p in read_jsonl(continued / "annotations.jsonl", Annotation) if p.task == "closed_qa"][:2]
    write_jsonl(tmp_path / "mine.jsonl", [row.model_copy(update={"generator": "source:mine"}) for row in asked])
    arguments = [f"ckpt={smoke_run}", "questions=retention_file", "evaluation.modes=[direct]", "logger=none"]
    path = f"questions.retention.sources.file.path={tmp_path / 'mine.jsonl'}"
    assert run("eval", *arguments, path, f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert len(read_jsonl(tmp_path / "run" / "retention.jsonl", Prediction)) == 2


def test_a_slice_that_is_not_known_is_refused_before_a_training(world_dir: Path, tmp_path: Path, capsys):
    assert composed("train").evaluation.slices == []
    arguments = tiny(world_dir, **{"evaluation.slices": "[moon]"})
    assert run("train", *arguments, f"hydra.run.dir={tmp_path}") == 2
    assert "evaluation.slices=[moon]: no such key in the metadata of the clips; choose from" in capsys.readouterr().err
