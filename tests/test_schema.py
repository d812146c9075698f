import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from records import make_clip, make_view

from autodrive.errors import InputError
from autodrive.schema import Annotation, Clip, Prediction, Reply, iterate_jsonl, read_jsonl, write_jsonl


def test_manifest_round_trip(tmp_path: Path):
    clips = [make_clip(id=f"v{i}#0", metadata={"weather": "rain", "nested": {"a": [1, 2]}}) for i in range(3)]
    path = tmp_path / "clips.jsonl"
    write_jsonl(path, clips)
    assert read_jsonl(path, Clip) == clips
    assert not list(tmp_path.glob("*.partial"))


def test_bad_line_is_named_with_file_and_number(tmp_path: Path):
    path = tmp_path / "clips.jsonl"
    write_jsonl(path, [make_clip()])
    with path.open("a") as lines:
        lines.write('{"id": "b#0"}\n')
    with pytest.raises(InputError, match=r"clips\.jsonl:2: not a valid Clip"):
        read_jsonl(path, Clip)


def test_misspelt_field_is_refused(tmp_path: Path):
    path = tmp_path / "clips.jsonl"
    record = json.loads(make_clip().model_dump_json()) | {"lable": "collision"}
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError, match="lable"):
        read_jsonl(path, Clip)


def test_missing_manifest_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(InputError, match=r"autodrive\.prepare"):
        next(iterate_jsonl(tmp_path / "none.jsonl", Clip))


@pytest.mark.parametrize(
    "changes", [{"end_s": 0.0}, {"start_s": -1.0}, {"views": {}}, {"views": {"driver": make_view()}}]
)
def test_impossible_clips_are_refused(changes: dict):
    with pytest.raises(ValidationError):
        make_clip(**changes)


@pytest.mark.parametrize("changes", [{"native_fps": 0}, {"native_fps": float("nan")}, {"width": 0}])
def test_impossible_views_are_refused(changes: dict):
    with pytest.raises(ValidationError):
        make_view(**changes)


def test_records_are_frozen():
    with pytest.raises(ValidationError):
        make_clip().label = "normal"  # type: ignore[misc]


def annotation(**changes) -> Annotation:
    facts = {
        "clip_id": "a#0",
        "task": "mcq",
        "question": "q?",
        "answer": "x",
        "generator": "rule/1",
        "options": ("x", "y"),
    }
    return Annotation.create(**(facts | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"clip_id": "b#0"},
        {"task": "closed_qa"},
        {"question": "Q?"},
        {"answer": "y"},
        {"generator": "rule/2"},
        {"options": ("y", "x")},
        {"think": "because"},
    ],
)
def test_annotation_id_depends_on_everything_that_identifies_it(changes: dict):
    assert annotation(**changes).id != annotation().id


def test_a_trace_and_its_repair_have_different_ids():
    assert annotation(think="the gap closes").id != annotation(think="the gap closes, then opens").id
    assert annotation(think="because").mode == "reasoning"
    assert annotation().mode == "direct"


def test_a_reply_needs_no_reference():
    question = {"annotation_id": "q", "clip_id": "mined#0", "task": "mcq", "question": "?", "mode": "direct"}
    who = {"model": "tiny", "weights_digest": "w", "prompt_hash": "p"}
    reply = Reply.model_validate({**question, **who, "reply": "B", "finished": True})
    assert not {"answer", "parsed", "source_video_id"} & set(Reply.model_fields)
    with pytest.raises(ValidationError, match="answer"):
        Prediction(**reply.model_dump())


def test_answer_must_be_an_option():
    with pytest.raises(ValidationError, match="not among the options"):
        annotation(answer="z")


@given(st.text(), st.text())
def test_question_view_carries_no_answer(answer: str, question: str):
    view = annotation(answer=answer, options=(), question=question).without_answer()
    assert set(type(view).model_fields) == {"task", "question", "options"}
