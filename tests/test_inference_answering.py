"""The loop that asks a student, and its replies beside their references."""

import pytest
import torch
from records import make_clip
from run_samples import label_set, task_book
from student_samples import make_sample, make_student

from autodrive.annotation.rules import ClassQuestion
from autodrive.annotation.supply import AnnotatedClip
from autodrive.data_assembly import headline_answers
from autodrive.inference.answering import (
    Respondent,
    answer_questions,
    beside_references,
    weights_digest,
    with_progress,
)
from autodrive.schema import Annotation, Question, Reply
from autodrive.students.student import Student
from autodrive.trees.packing import pack_trees
from autodrive.trees.sample import Branch, ClipSample, Turn

RESPONDENT = Respondent("tiny", None, "digest")
BOOK = task_book()


@pytest.fixture(scope="module")
def student() -> Student:
    return make_student()


def annotated(label: str, seed: int) -> AnnotatedClip:
    """A clip with a multiple-choice question and a description with two references."""
    clip = make_clip(id=f"video{seed}#0", source_video_id=f"video{seed}", label=label)
    mcq = tuple(ClassQuestion("mcq").annotations([clip], label_set(), seed=0))
    free = tuple(Annotation.create(clip.id, "caption", "What happens?", a, "test") for a in ("Nothing.", "No event."))
    return AnnotatedClip(clip, label, {"classes": mcq, "people": free})


def batches(student: Student, clips: list[AnnotatedClip]):
    for seed, member in enumerate(clips):
        branches = tuple(
            Branch(id_, (Turn(question.question),), ("A", "B", "C") if question.options else ())
            for id_, question in member.questions()
        )
        sample = make_sample(seed=seed, branches=branches)
        sample = ClipSample(member.clip.id, sample.system, sample.prefix, branches)
        yield pack_trees([student.processor.encode(sample)], 10**6)


def questions(clips: list[AnnotatedClip]) -> dict[str, Question]:
    return {id_: question for clip in clips for id_, question in clip.questions()}


def test_every_question_is_answered_once_without_a_reference(student: Student):
    clips = [annotated("normal", 0), annotated("collision", 1)]
    done: list[int] = []
    told = with_progress(batches(student, clips), done.append)
    replies = list(answer_questions(student, told, questions(clips), BOOK, RESPONDENT))
    assert [r.annotation_id for r in replies] == [clip.annotations[i].id for clip in clips for i in (0, 1)]
    assert [r.clip_id for r in replies] == ["video0#0"] * 2 + ["video1#0"] * 2
    assert done == [1, 1]
    for r in replies:
        assert type(r) is Reply
        assert (r.model, r.weights_digest, r.prompt_hash, r.mode) == ("tiny", "digest", BOOK.hash, "direct")
        assert r.latency_s is not None
        assert r.latency_s > 0


def test_predictions_are_replies_beside_their_references(student: Student):
    clips = [annotated("normal", 0), annotated("collision", 1)]
    replies = list(answer_questions(student, batches(student, clips), questions(clips), BOOK, RESPONDENT))
    found = list(beside_references(replies, clips, BOOK, label_set(), "fingerprint"))
    assert [p.reply for p in found] == [r.reply for r in replies]
    for p in found:
        assert (p.parsed is None) != (p.failure is None)
        assert p.data_fingerprint == "fingerprint"
    assert [p.answer for p in found] == ["normal", "Nothing.", "collision", "Nothing."]
    assert [p.other_answers for p in found] == [(), ("No event.",)] * 2
    assert [p.source_video_id for p in found] == ["video0"] * 2 + ["video1"] * 2


def test_a_reply_is_finished_if_the_student_ended_it(student: Student):
    clips = [annotated("normal", 0)]

    def finished() -> list[bool]:
        replies = answer_questions(ending, batches(ending, clips), questions(clips), BOOK, RESPONDENT)
        return [reply.finished for reply in replies]

    ending = make_student()
    assert finished() == [False, False]
    ending.model.lm_head.register_forward_hook(
        lambda _module, _inputs, logits: logits.index_add(
            -1, torch.tensor([ending.processor.end_id]), torch.full((*logits.shape[:-1], 1), 1e4)
        )
    )
    assert finished() == [True, True]


def test_questions_without_options_have_no_scores(student: Student):
    clips = [annotated("normal", 0)]
    found = answer_questions(student, batches(student, clips), questions(clips), BOOK, RESPONDENT)
    scores = {r.task: r.option_log_probs for r in found}
    assert scores["caption"] is None
    assert scores["mcq"] is not None
    assert torch.tensor(scores["mcq"]).exp().sum() < 1


def test_the_digest_follows_the_weights(student: Student):
    changed = make_student()
    assert weights_digest(changed) == weights_digest(student)
    with torch.no_grad():
        next(changed.parameters()).flatten()[0] += 1e-3
    assert weights_digest(changed) != weights_digest(student)


def test_the_index_of_the_right_option_follows_the_order_shown():
    clips = [annotated("near_collision", seed) for seed in range(4)]
    answers = headline_answers(clips, BOOK)
    assert len(answers) == 4
    for member in clips:
        mcq = member.annotations[0]
        assert mcq.options[answers[mcq.id]] == "near_collision"
    assert len(set(answers.values())) > 1
