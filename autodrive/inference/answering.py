"""Asks a student questions and keeps its replies; beside their references these are predictions."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autodrive.annotation.supply import AnnotatedClip
from autodrive.labels import LabelSet
from autodrive.ranks.group import Group
from autodrive.schema import Annotation, Prediction, Question, Reply
from autodrive.seeding import generator_for
from autodrive.students.digests import tensors_digest
from autodrive.students.student import Student
from autodrive.tasks.task_book import TaskBook
from autodrive.trees.clip_tree import BranchSpan, TreeRow
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

    def reply(self, question: Question, prompt_hash: str, **said: Any) -> Reply:
        """What was said to a question: the further fields of `Reply`."""
        return Reply(
            task=question.task,
            question=question.question,
            options=question.options,
            model=self.model,
            adapter=self.adapter,
            weights_digest=self.weights_digest,
            prompt_hash=prompt_hash,
            **said,
        )


@dataclass(frozen=True)
class Samples:
    """Replies that are drawn beside the most probable one.

    Attributes:
        number: How many of each question.
        temperature: What logits are divided by before a token is drawn; 1: the model's own probabilities.
        seed: A reply follows from it, the question, the mode and its own number, whoever else is asked meanwhile.
    """

    number: int = 0
    temperature: float = 1.0
    seed: int = 0


class TokenDraw:
    """Samples the next token of every span of a row.

    Args:
        samples: Temperature and seed.
        number: Number of the reply.
        spans: The row's spans; each has a stream of numbers of its own.
    """

    def __init__(self, samples: Samples, number: int, spans: Sequence[BranchSpan]) -> None:
        self.temperature = samples.temperature
        self.streams: list[np.random.Generator] = [
            generator_for(samples.seed, "sample", span.annotation_id, span.mode, number) for span in spans
        ]

    def __call__(self, logits_SV: Tensor) -> Tensor:
        """The tokens (S,), by the inverse of the cumulated probabilities."""
        cumulated_SV = (logits_SV.double() / self.temperature).softmax(-1).cumsum(-1)
        uniform_S = torch.tensor([stream.random() for stream in self.streams], dtype=torch.float64)
        wanted_S = uniform_S.to(cumulated_SV.device) * cumulated_SV[:, -1]
        found_S = torch.searchsorted(cumulated_SV, wanted_S[:, None], right=True).squeeze(1)
        return found_S.clamp(max=logits_SV.shape[1] - 1)


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
    lockstep: Group | None = None,
    samples: Samples | None = None,
) -> Iterator[Reply]:
    """Generate a reply to, and score the options of, every question of every clip, from one pass over the clip.

    No reference is needed, and none is seen.

    Args:
        student: The model, on any device; put in evaluation mode here.
        batches: Packed rows without targets.
        questions: What the rows ask, by the id they ask it under.
        book: Knows how long a reply of each task may be.
        respondent: Copied into every reply.
        lockstep: The processes among which the weights are cut up, each with as many batches; None if none are.
        samples: Further replies that are drawn; None: none.

    Yields:
        The reply to each question in each mode, in the batches' order, and behind it those that were drawn.
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
                latency_s = (time.perf_counter() - began) / max(1, len(row.spans))
                drawn = []
                if samples is not None:
                    draws = [TokenDraw(samples, number, row.spans) for number in range(samples.number)]
                    drawn = [prefilled.generate(limits, draw) for draw in draws]
            if row.filler:
                continue
            for place, (question, span) in enumerate(zip(asked, row.spans, strict=True)):
                for number, answer in enumerate(each[place] for each in (answers, *drawn)):
                    yield respondent.reply(
                        question,
                        book.hash,
                        annotation_id=span.annotation_id,
                        clip_id=row.trees[span.tree].clip_id,
                        mode=span.mode,
                        reply=student.processor.decode(answer.ids),
                        finished=answer.finished,
                        option_log_probs=tuple(map(float, scores[place])) or None,
                        latency_s=None if number else latency_s,
                        sample=number - 1 if number else None,
                    )


def with_progress(batches: Iterable[Sequence[TreeRow]], on_clips: Callable[[int], None]) -> Iterator[Sequence[TreeRow]]:
    """The same batches; when the next one is asked for, `on_clips` is told how many clips the last one had."""
    for rows in batches:
        yield rows
        on_clips(len({tree.clip_id for row in rows for tree in row.trees if not row.filler}))


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
