"""Label sets, and students that are evaluated with another one than they were taught."""

import numpy as np
import pytest
from omegaconf import OmegaConf
from records import make_clip
from run_samples import LABELS_FILE, task_book

from autodrive.annotation.rules import ClassQuestion
from autodrive.annotation.supply import AnnotatedClip, supply
from autodrive.errors import InputError
from autodrive.inference.answering import beside_references
from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Prediction, Reply
from autodrive.tasks.scorecard import scorecard
from autodrive.tasks.task_book import TaskBook

BOOK: TaskBook = task_book()


def label_set(name: str, shown: LabelSet | None = None) -> LabelSet:
    node = OmegaConf.load(LABELS_FILE.with_name(f"{name}.yaml"))
    return LabelSet(node.name, node.classes, shown)


def made_of(name: str = "mine", **sources: list[str]) -> LabelSet:
    return LabelSet(name, [_class(name, of_class) for name, of_class in sources.items()])


def _class(name: str, sources: list[str]) -> dict:
    return {"name": name, "option": name, "sources": sources, "anomalous": name != "normal", "short": name}


EVENT3, EVENT2 = label_set("event3"), label_set("event2")


def test_a_set_folds_into_one_that_merges_or_renames_its_classes():
    assert EVENT3.folding(EVENT2) == {"normal": "normal", "near_collision": "event", "collision": "event"}
    assert EVENT3.folding(EVENT3) == {name: name for name in EVENT3.names}
    renamed = made_of(crash=["collision"], close_call=["near_collision"], calm=["normal"])
    assert EVENT3.folding(renamed) == {"normal": "calm", "near_collision": "close_call", "collision": "crash"}
    # What only one of the two sets names says nothing of the other.
    assert EVENT2.folding(made_of(normal=["normal", "stop"], event=["collision", "near_collision"])) == {
        "normal": "normal",
        "event": "event",
    }


@pytest.mark.parametrize(
    ("own", "asked", "said"),
    [
        (EVENT2, EVENT3, r"class 'event' .* lie in several of its classes \(collision, near_collision\)"),
        (EVENT3, made_of(normal=["normal"], crash=["collision"]), "class 'near_collision' .* in none of its classes"),
    ],
)
def test_a_class_without_one_counterpart_is_named(own: LabelSet, asked: LabelSet, said: str):
    with pytest.raises(InputError, match=said) as caught:
        own.folding(asked)
    assert f"labels={asked.name}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_source_in_two_classes_is_refused():
    with pytest.raises(InputError, match="labels=mine: 'crash' is among the sources of two classes"):
        made_of(normal=["normal"], collision=["crash"], event=["event", "crash"])


def answers_by_heart(labels: LabelSet, truths: list[str]) -> list[Prediction]:
    """Predictions of a student that learned one letter for each class of event3 and says it whatever is shown."""
    source = ClassQuestion("mcq", option_order="per_run")
    clips = [make_clip(id=f"v{i}#0", source_video_id=f"v{i // 3}", label=label) for i, label in enumerate(truths)]
    found = supply({"mcq": source}, clips, [c.id for c in clips], BOOK, labels, seed=0)
    assert found.set_aside == []
    random = np.random.default_rng(0)
    learned = source.questions("any", EVENT3, 0, 1)[0].options
    replies = [_reply(clip, learned, random) for clip in found.clips]
    return list(beside_references(replies, found.clips, BOOK, labels, "fingerprint"))


def _reply(clip: AnnotatedClip, learned: tuple[str, ...], random: np.random.Generator) -> Reply:
    (annotation,) = clip.annotations
    truth = "collision" if clip.clip.label == "event" else str(clip.clip.label)
    meant = truth if random.random() < 0.7 else learned[random.integers(3)]
    letter = "ABC"[learned.index(meant)] if random.random() < 0.9 else "?"
    return Reply(
        annotation_id=annotation.id,
        clip_id=clip.clip.id,
        task="mcq",
        question=annotation.question,
        options=annotation.options,
        mode="direct",
        model="by_heart",
        weights_digest="w",
        prompt_hash="p",
        reply=letter,
        finished=True,
        option_log_probs=tuple(np.log(random.dirichlet([1, 1, 1]) + (np.array(learned) == meant)).tolist()),
    )


def test_folded_answers_are_scored_as_incident_or_not_is_scored_in_the_student_s_own_classes():
    truths = ["normal", "near_collision", "collision"] * 30
    own = scorecard(answers_by_heart(EVENT3, truths), BOOK, EVENT3)
    asked = label_set("event2", shown=EVENT3)
    predictions = answers_by_heart(asked, truths)
    folded = scorecard(predictions, BOOK, asked)
    assert 0.7 < own["test/binary_accuracy"] < 0.95
    for end in ("", "_ci_low", "_ci_high"):
        assert (
            folded[f"test/accuracy{end}"] == folded[f"test/binary_accuracy{end}"] == own[f"test/binary_accuracy{end}"]
        )
        assert folded[f"test/average_precision{end}"] == own[f"test/average_precision{end}"]
        assert folded[f"test/parse_failures{end}"] == own[f"test/parse_failures{end}"] > 0
    assert folded["test/folded_classes"] == 3
    assert "test/folded_classes" not in own
    one = predictions[0]
    assert set(one.options) == set(EVENT3.names)
    assert [EVENT3.folding(asked)[option] for option in one.options] == list(one.option_classes)
    assert {p.answer for p in predictions} == {"normal", "event"} == {p.parsed for p in predictions} - {None}


def test_a_clip_whose_class_the_student_has_no_name_for_is_asked_and_scored():
    predictions = answers_by_heart(label_set("event2", shown=EVENT3), ["normal", "event"] * 30)
    assert {p.answer for p in predictions} == {"normal", "event"}
    metrics = scorecard(predictions, BOOK, EVENT2)
    assert metrics["test/n"] == 60
    assert metrics["test/event_recall"] > 0.6


def test_a_renamed_and_reordered_set_asks_the_same_and_scores_the_same():
    truths = ["normal", "near_collision", "collision"] * 30
    renamed = LabelSet(
        "mine", [{**vars(c), "name": f"my_{c.name}", "option": "?"} for c in reversed(EVENT3.classes)], EVENT3
    )
    ours, theirs = answers_by_heart(EVENT3, truths), answers_by_heart(renamed, truths)
    assert [p.options for p in ours] == [p.options for p in theirs]
    assert [None if p.parsed is None else f"my_{p.parsed}" for p in ours] == [p.parsed for p in theirs]
    own, other = scorecard(ours, BOOK, EVENT3), scorecard(theirs, BOOK, renamed)
    assert other["test/my_collision_f1"] == own["test/collision_f1"]
    assert other["test/my_collision_average_precision"] == own["test/collision_average_precision"]


def test_questions_from_a_file_are_folded_too_and_those_in_other_classes_set_aside():
    class Rows:
        def annotations(self, clips, labels, seed):
            for answer, options in (("collision", EVENT3.names), ("event", EVENT2.names)):
                yield Annotation.create(clips[0].id, "mcq", "?", answer, "people", options)

    found = supply({"rows": Rows()}, [make_clip()], ["a#0"], BOOK, label_set("event2", shown=EVENT3), seed=0)
    ((folded,),) = [clip.annotations for clip in found.clips]
    assert (folded.options, folded.option_classes) == (EVENT3.names, ("normal", "event", "event"))
    assert folded.answer == "event"
    assert [item.reason for item in found.set_aside] == ["option_not_in_label_set"]


def test_what_is_folded_is_told_with_what_cannot_be_said():
    wider = LabelSet("wider", [*EVENT3.classes, _class("stop", ["stop"])], EVENT3)
    assert wider.remark.endswith("collision → collision. The student has no class for stop.")
    assert EVENT3.remark == ""
