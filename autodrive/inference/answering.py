"""Asks a student questions and keeps its replies; beside their references these are predictions."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from autodrive.annotation.supply import AnnotatedClip
from autodrive.labels import LabelSet
from autodrive.ranks.group import Group
from autodrive.schema import Annotation, Prediction, Question, Reply
from autodrive.students.digests import tensors_digest
from autodrive.students.student import Student
from autodrive.tasks.task_book import TaskBook
from autodrive.trees.clip_tree import TreeRow
from autodrive.trees.sharing import side_by_side


@dataclass(frozen=True)
class Respondent:
    """Who replies, as every reply of a run says it.

    Attributes:
        model: Name of the student's recipe.
        adapter: Kind, rank and digest of the adapter, if one is in place, such as `dora_r16@…`.
        weights_digest: Identifies the weights, see `weights_digest`.
    """

    model: str
    adapter: str | None
    weights_digest: str


def respondent_of(student: Student) -> Respondent:
    """The student as it is now."""
    return Respondent(student.name, student.adapter_name(), weights_digest(student))


def weights_digest(student: torch.nn.Module) -> str:
    """The digest of all weights, an adapter's included."""
    return tensors_digest(student.state_dict())


def answer_questions(
    student: Student,
    batches: Iterable[Sequence[TreeRow]],
    questions: Mapping[str, Question],
    book: TaskBook,
    respondent: Respondent,
    on_batch: Callable[[int], None] = lambda num_clips: None,
    lockstep: Group | None = None,
) -> Iterator[Reply]:
    """Generate a reply to, and score the options of, every question of every clip, from one pass over the clip.

    No reference is needed, and none is seen.

    Args:
        student: The model, on any device; put in evaluation mode here.
        batches: Packed rows without targets.
        questions: What the rows ask, by the id they ask it under.
        book: Knows how long a reply of each task may be.
        respondent: Copied into every reply.
        on_batch: Told how many clips were done, for a progress bar.
        lockstep: The processes among which the weights are cut up, each with as many batches; None if none are.

    Yields:
        One reply a question and mode, in the batches' order.
    """
    device = next(student.parameters()).device
    student.eval()
    for rows in batches:
        for row in side_by_side(rows, lockstep):
            asked = [questions[span.annotation_id] for span in row.spans]
            limits = [book[q.task].max_new_tokens[span.mode] for q, span in zip(asked, row.spans, strict=True)]
            began = time.perf_counter()
            with torch.inference_mode():
                prefilled = student.prefill(row.to(device), lockstep)
                scores = prefilled.score_options()
                answers = prefilled.generate(limits)
            if row.filler:
                continue
            latency_s = (time.perf_counter() - began) / max(1, len(row.spans))
            for question, span, log_probs, answer in zip(asked, row.spans, scores, answers, strict=True):
                yield Reply(
                    annotation_id=span.annotation_id,
                    clip_id=row.trees[span.tree].clip_id,
                    task=question.task,
                    question=question.question,
                    options=question.options,
                    mode=span.mode,
                    model=respondent.model,
                    adapter=respondent.adapter,
                    weights_digest=respondent.weights_digest,
                    prompt_hash=book.hash,
                    reply=student.processor.decode(answer.ids),
                    finished=answer.finished,
                    option_log_probs=tuple(float(value) for value in log_probs) or None,
                    latency_s=latency_s,
                )
        on_batch(len({tree.clip_id for row in rows for tree in row.trees if not row.filler}))


def beside_references(
    replies: Iterable[Reply],
    clips: Iterable[AnnotatedClip],
    book: TaskBook,
    labels: LabelSet,
    data_fingerprint: str,
) -> Iterator[Prediction]:
    """Read replies and put each beside its reference.

    Args:
        replies: Replies to the questions of these clips.
        clips: The clips with the annotations that were asked.
        book: Its tasks read the replies.
        labels: The run's classes, in which replies are read.
        data_fingerprint: Copied into every prediction.

    Yields:
        One prediction a reply, in their order.
    """
    known: dict[str, tuple[AnnotatedClip, Annotation]] = {}
    references: dict[tuple[str, Question], list[str]] = {}
    for clip in clips:
        for annotation in clip.annotations:
            known[annotation.id] = clip, annotation
            references.setdefault((clip.clip.id, annotation.without_answer()), []).append(annotation.answer)
    for reply in replies:
        clip, annotation = known[reply.annotation_id]
        question = annotation.without_answer()
        parsed = book[reply.task].read(reply.reply, question, reply.mode, labels)
        others = () if question.options else references[clip.clip.id, question][1:]
        yield Prediction(
            **reply.model_dump(),
            source_video_id=clip.clip.source_video_id,
            data_fingerprint=data_fingerprint,
            option_classes=annotation.option_classes,
            answer=annotation.answer,
            other_answers=tuple(others),
            parsed=parsed.value,
            failure=parsed.failure,
        )
