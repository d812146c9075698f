"""Sources of annotations: what they give, what is set aside, and how files and questions reach a run."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.utils import instantiate
from records import make_clip
from run_samples import label_set, task_book
from running import composed, run, tiny

from autodrive.annotation.rules import ClassQuestion, ClosedQuestions
from autodrive.annotation.sources import AnnotationFile, SomeClips
from autodrive.annotation.supply import supply
from autodrive.datasets.manifest import load_clips
from autodrive.errors import InputError
from autodrive.schema import Annotation, Clip, Prediction, SetAside, read_jsonl, write_jsonl

QUESTION = "What happens?"


def caption(clip_id: str, answer: str, **changes) -> Annotation:
    return Annotation.create(
        clip_id, changes.pop("task", "caption"), QUESTION, answer, changes.pop("generator", "source:people"), **changes
    )


def written(folder: Path, annotations: Sequence[Annotation]) -> AnnotationFile:
    write_jsonl(folder / "annotations.jsonl", annotations)
    return AnnotationFile(str(folder / "annotations.jsonl"))


def test_rows_of_a_file_add_up(tmp_path: Path):
    clips = [make_clip(id="a#0"), make_clip(id="b#0")]
    rows = [
        caption("a#0", "A car stops."),
        caption("a#0", "The car ahead stops."),
        caption("a#0", "A car stops."),
        caption("elsewhere#0", "A bus."),
        caption("val#0", "A tram."),
        caption("a#0", "wait", task="instruction"),
        caption("b#0", "so", think="because"),
    ]
    found = supply({"file": written(tmp_path, rows)}, clips, {"a#0", "b#0", "val#0"}, task_book(), label_set(), 0)
    assert [[a.answer for a in c.annotations] for c in found.clips] == [["A car stops.", "The car ahead stops."], []]
    assert [(s.item, s.reason) for s in found.set_aside] == [
        (rows[2].id, "duplicate"),
        (rows[3].id, "unknown_clip"),
        (rows[5].id, "unknown_task"),
        (rows[6].id, "task_has_no_reasoning_mode"),
    ]
    assert "source file" in found.set_aside[0].detail


def test_a_source_takes_the_rows_of_its_tasks_and_generators(tmp_path: Path):
    rows = [
        caption("a#0", "by rule", generator="rule/2"),
        caption("a#0", "by a model", generator="openai:m@0"),
        caption("a#0", "a reply", generator="openai:m@0", task="vqa"),
    ]
    path = written(tmp_path, rows).path

    def taken(**wanted: list[str]) -> list[str]:
        return [row.answer for row in AnnotationFile(path, **wanted).annotations([], label_set(), 0)]

    assert taken() == ["by rule", "by a model", "a reply"]
    assert taken(tasks=["caption"]) == ["by rule", "by a model"]
    assert taken(generators=["openai:"]) == ["by a model", "a reply"]
    assert taken(tasks=["caption"], generators=["rule", "source:"]) == ["by rule"]
    with pytest.raises(
        InputError, match=r"no row fits tasks=\[mcq\]; it holds caption by openai:m@0, caption by rule/2"
    ):
        taken(tasks=["mcq"])


def test_a_share_of_the_clips_is_drawn_of_a_file_as_of_rules(tmp_path: Path):
    clips = [make_clip(id=f"{number}#0") for number in range(200)]
    file = written(tmp_path, [caption(clip.id, "A car.") for clip in clips] + [caption("elsewhere#0", "A bus.")])
    sources = {"file": SomeClips(file, 0.25), "mcq": SomeClips(ClassQuestion("mcq"), 0.25)}
    found = supply(sources, clips, {clip.id for clip in clips}, task_book(), label_set(), 0)
    chosen = [{c.clip.id for c in found.clips if name in c.by_source} for name in sources]
    assert chosen[0] == chosen[1]
    assert 30 < len(chosen[0]) < 70
    assert [row.reason for row in found.set_aside] == ["unknown_clip"]


def test_another_row_with_the_same_id_is_no_duplicate(tmp_path: Path):
    rows = [caption("a#0", text) for text in ("A car.", "A van.", "A car.")]
    rows[1] = rows[1].model_copy(update={"id": rows[0].id})
    found = supply({"file": written(tmp_path, rows)}, [make_clip()], {"a#0"}, task_book(), label_set(), 0)
    assert [row.reason for row in found.set_aside] == ["id_of_another_row", "duplicate"]


def test_an_empty_file_is_a_mistake(tmp_path: Path):
    source = written(tmp_path, [])
    with pytest.raises(InputError, match=r"annotations\.jsonl: holds no annotation"):
        list(source.annotations([], label_set(), 0))


def test_a_row_that_does_not_say_what_it_is_is_named(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text('{"task": "vqa", "generator": "rule/2"}\n{"task": "caption"}\n')
    source = AnnotationFile(str(tmp_path / "rows.jsonl"), tasks=["caption"])
    with pytest.raises(InputError, match=r"rows.jsonl:2: not a valid Annotation"):
        list(source.annotations([], label_set(), 0))


def test_references_of_a_free_question_are_asked_once_and_taught_apart(tmp_path: Path):
    rows = [caption("a#0", "A car stops."), caption("a#0", "The car ahead stops.")]
    sources = {"mcq": ClassQuestion("mcq", num_orders=2), "file": written(tmp_path, rows)}
    (clip,) = supply(sources, [make_clip()], {"a#0"}, task_book(), label_set(), 0).clips
    assert list(clip.by_source) == ["mcq", "file"]
    assert len(clip.annotations) == 4
    assert [id_ for id_, _ in clip.questions()] == [a.id for a in clip.annotations[:3]]


def test_a_missing_or_broken_file_is_one_line(tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.jsonl: no such file of annotations; fix `path`"):
        AnnotationFile(str(tmp_path / "none.jsonl")).annotations([], label_set(), 0)
    (tmp_path / "broken.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"broken\.jsonl:1: not a valid Annotation"):
        list(AnnotationFile(str(tmp_path / "broken.jsonl")).annotations([], label_set(), 0))


def test_rules_of_a_clip_without_a_class_do_not_ask_for_it():
    clip = make_clip(label=None, event_time_s=None, metadata={"weather": "rain"})
    assert list(ClassQuestion("mcq").annotations([clip], label_set(), 0)) == []
    (weather,) = ClosedQuestions("closed_qa", ["weather", "when"]).annotations([clip], label_set(), 0)
    assert weather.answer == "rain"


def test_what_evaluation_asks_does_not_follow_the_training_recipe():
    default, other = composed("train"), composed("train", ["annotations.closed_qa.keys=[]", "mixture=unbalanced"])
    assert default.questions == other.questions
    clip = make_clip(metadata={"weather": "rain", "light": "day"})

    def asked(config) -> list[str]:
        sources = {name: instantiate(node) for name, node in config.questions.items()}
        (found,) = supply(sources, [clip], {clip.id}, task_book(), label_set(), 0).clips
        return [question.question for _, question in found.questions()]

    assert asked(default) == asked(other)
    assert "What is the weather?" in asked(other)


def test_groups_of_sources_compose_with_a_file():
    config = composed("train", ["annotations=[rules,file]", "annotations.file.path=captions.jsonl"])
    assert list(config.annotations) == ["mcq", "closed_qa", "file"]
    assert composed("train").annotations.mcq.option_order == composed("train").questions.mcq.option_order == "per_run"
    paper = composed("train", ["annotations=rules", "questions=rules"])
    assert paper.annotations.mcq.option_order == paper.questions.mcq.option_order == "per_clip"
    for mixture in ("uniform", "balanced", "unbalanced"):
        assert composed("train", [f"mixture={mixture}"]).mixture.siblings_together


@pytest.fixture(scope="module")
def captioned(smoke_run: Path, manifest: Path, world_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was taught captions from a file, and closed questions not at all."""
    folder = tmp_path_factory.mktemp("captioned")
    clips = read_jsonl(manifest, Clip)
    rows = [caption(c.id, f"The light is {c.metadata['light']}.") for c in clips]
    rows += [caption(c.id, f"{c.metadata['light']} light") for c in clips if c.split == "test"]
    rows += [caption("nowhere#0", "Nothing."), caption(clips[0].id, "wait", task="instruction")]
    file = written(folder, rows)
    arguments = [
        *tiny(world_dir, num_steps=2, **{"trainer.val_check_interval": 2}),
        "annotations=[rules_one_order,file]",
        "questions=[rules_one_order,file]",
        f"annotations.file.path={file.path}",
        f"questions.file.path={file.path}",
        "annotations.closed_qa.keys=[]",
        "prompts.tasks.caption.max_new_tokens.direct=6",
        "evaluation.num_strips=0",
    ]
    assert run("train", *arguments, f"hydra.run.dir={folder / 'run'}") == 0
    return folder / "run"


def test_a_run_teaches_and_asks_captions_from_a_file(captioned: Path):
    metrics = json.loads((captioned / "metrics.json").read_text())
    assert metrics["test/n"] == metrics["test/caption_n"] == 9
    assert 0 <= metrics["test/caption_rouge_l_ci_low"] <= metrics["test/caption_rouge_l"] <= 1
    assert metrics["test/closed_qa_n"] > 0  # training was not taught them, evaluation asks them all the same
    assert not any(key.startswith("test_reasoning/caption") for key in metrics)
    said = [p for p in read_jsonl(captioned / "predictions.jsonl", Prediction) if p.task == "caption"]
    assert len(said) == 9
    assert all(len(p.other_answers) == 1 and p.parsed == p.reply and p.failure is None for p in said)
    assert "Task caption" in (captioned / "report.html").read_text()


def test_a_run_counts_and_shows_annotations_without_use(captioned: Path):
    facts = json.loads((captioned / "provenance.json").read_text())
    assert facts["mixture"]["annotations_per_epoch"] == {"mcq": 12, "file": 12}
    dropped = read_jsonl(captioned / "dropped.jsonl", SetAside)
    assert facts["annotations_set_aside"] == len(dropped) == 2  # each once, though the file is in both groups
    assert {s.reason for s in dropped} == {"unknown_clip", "unknown_task"}
    page = (captioned / "report.html").read_text()
    assert "unknown_clip" in page
    assert "unknown_task" in page


def test_clips_without_classes_are_taught_and_asked_captions_alone(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    clips = [clip.model_copy(update={"label": None}) for clip in load_clips(manifest)]
    write_jsonl(tmp_path / "clips.jsonl", clips)
    file = written(tmp_path, [caption(c.id, f"The light is {c.metadata['light']}.") for c in clips])
    sources = ["annotations=file", "questions=file", f"annotations.file.path={file.path}"]
    sources += [f"questions.file.path={file.path}", f"clips={tmp_path / 'clips.jsonl'}"]
    size = ["experiment=smoke", "logger=csv", "fps=5", "num_steps=2", "trainer.val_check_interval=2", "num_workers=0"]
    folder = tmp_path / "run"
    assert run("train", *size, *sources, f"hydra.run.dir={folder}") == 0
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test/caption_n"] == 9
    assert "test/n" not in metrics
    assert (folder / "checkpoints" / "best.ckpt").is_file()  # the newest: nothing says which is best
    assert "rouge l" in capsys.readouterr().out
    asked = [f"ckpt={folder}", "evaluation.modes=[reasoning]", f"hydra.run.dir={tmp_path / 'eval'}"]
    assert run("eval", *asked) == 2
    assert "no question about the test clips has such a mode" in capsys.readouterr().err
