import pytest
import torch
from records import make_clip
from run_samples import label_set
from student_samples import make_sample, make_student

from autodrive.annotation.rules import mcq_annotations, mcq_questions
from autodrive.mixture.mixture import LabelledClip
from autodrive.schema import Annotation
from autodrive.students.student import Student
from autodrive.training.answering import Provenance, answer_questions
from autodrive.training.assembly import device_of, mcq_answers
from autodrive.trees.packing import pack_trees
from autodrive.trees.sample import Branch, ClipSample, Turn

PROVENANCE = Provenance("tiny", None, "fingerprint", "prompts")


@pytest.fixture(scope="module")
def student() -> Student:
    return make_student()


def labelled(label: str, seed: int) -> LabelledClip:
    clip = make_clip(id=f"video{seed}#0", source_video_id=f"video{seed}", label=label)
    annotations = mcq_annotations(clip, label, mcq_questions(clip.id, label_set(), seed=0))
    free = Annotation.create(clip.id, "caption", "What happens?", "Nothing.", "test")
    return LabelledClip(clip, label, (*annotations, free))


def batches(student: Student, clips: list[LabelledClip]):
    for seed, member in enumerate(clips):
        branches = tuple(
            Branch(a.id, (Turn(a.question),), ("A", "B", "C") if a.options else ()) for a in member.annotations
        )
        sample = make_sample(seed=seed, branches=branches)
        sample = ClipSample(member.clip.id, sample.system, sample.prefix, branches)
        yield pack_trees([student.processor.encode(sample)], 10**6)


def test_every_annotation_is_answered_once(student: Student):
    clips = [labelled("normal", 0), labelled("collision", 1)]
    done: list[int] = []
    found = answer_questions(
        student, batches(student, clips), clips, label_set(), {"direct": 3}, PROVENANCE, done.append
    )
    assert [p.annotation_id for p in found] == [a.id for c in clips for a in c.annotations]
    assert done == [1, 1]
    for p, (member, annotation) in zip(found, [(c, a) for c in clips for a in c.annotations], strict=True):
        assert (p.answer, p.options) == (annotation.answer, annotation.options)
        assert (p.clip_id, p.source_video_id) == (member.clip.id, member.clip.source_video_id)
        assert (p.model, p.data_fingerprint, p.prompt_hash, p.mode) == ("tiny", "fingerprint", "prompts", "direct")
        assert (p.parsed is None) != (p.failure is None)
        assert p.latency_s is not None
        assert p.latency_s > 0


def test_questions_without_options_have_no_scores(student: Student):
    clips = [labelled("normal", 0)]
    found = answer_questions(student, batches(student, clips), clips, label_set(), {"direct": 3}, PROVENANCE)
    scores = {p.task: p.option_log_probs for p in found}
    assert scores["caption"] is None
    assert scores["mcq"] is not None
    assert torch.tensor(scores["mcq"]).exp().sum() < 1


def test_the_index_of_the_right_option_follows_the_order_shown():
    clips = [labelled("near_collision", seed) for seed in range(4)]
    answers = mcq_answers(clips)
    assert len(answers) == 4
    for member in clips:
        mcq = member.annotations[0]
        assert mcq.options[answers[mcq.id]] == "near_collision"
    assert len(set(answers.values())) > 1


def test_the_device_follows_the_trainer_s_accelerator():
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
