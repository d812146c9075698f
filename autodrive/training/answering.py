"""Asks a student every question of a split and keeps its replies: the evaluation loop."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from autodrive.evaluation.parsers import parse_reply
from autodrive.labels import LabelSet
from autodrive.mixture.mixture import LabelledClip
from autodrive.prompts import option_texts
from autodrive.schema import Annotation, Clip, Mode, Prediction
from autodrive.students.student import Student
from autodrive.trees.clip_tree import BranchSpan, TreeRow


@dataclass(frozen=True)
class Provenance:
    """What every prediction of a run says about where it came from."""

    model: str
    adapter: str | None
    data_fingerprint: str
    prompt_hash: str


def answer_questions(
    student: Student,
    batches: Iterable[Sequence[TreeRow]],
    clips: Sequence[LabelledClip],
    labels: LabelSet,
    max_new_tokens: Mapping[Mode, int],
    provenance: Provenance,
    on_batch: Callable[[int], None] = lambda num_clips: None,
) -> list[Prediction]:
    """Generate a reply to, and score the options of, every question of every clip, from one pass over the clip.

    Args:
        student: the model, on any device; put in evaluation mode here.
        batches: packed rows without targets, of these clips.
        clips: the clips with their annotations.
        labels: gives the options' display words to the parser.
        max_new_tokens: longest reply in each inference mode.
        provenance: copied into every prediction.
        on_batch: told how many clips were done, for a progress bar.

    Returns:
        One prediction per question, in the batches' order.
    """
    known = {annotation.id: (c.clip, annotation) for c in clips for annotation in c.annotations}
    device = next(student.parameters()).device
    student.eval()
    predictions: list[Prediction] = []
    with torch.inference_mode():
        for rows in batches:
            for row in rows:
                began = time.perf_counter()
                prefilled = student.prefill(row.to(device))
                scores = prefilled.score_options()
                replies = prefilled.generate([max_new_tokens[span.mode] for span in row.spans])
                latency_s = (time.perf_counter() - began) / max(1, len(row.spans))
                for span, log_probs, ids in zip(row.spans, scores, replies, strict=True):
                    clip, annotation = known[span.annotation_id]
                    reply = student.processor.decode(ids)
                    predictions.append(
                        _prediction(span, clip, annotation, reply, log_probs, labels, provenance, latency_s)
                    )
            on_batch(len({tree.clip_id for row in rows for tree in row.trees}))
    return predictions


def _prediction(
    span: BranchSpan,
    clip: Clip,
    annotation: Annotation,
    reply: str,
    log_probs: Sequence[float],
    labels: LabelSet,
    provenance: Provenance,
    latency_s: float,
) -> Prediction:
    question = annotation.without_answer()
    lettered = question.task == "mcq"
    parsed = parse_reply(reply, span.mode, question.options, option_texts(question, labels), lettered=lettered)
    return Prediction(
        annotation_id=span.annotation_id,
        clip_id=clip.id,
        source_video_id=clip.source_video_id,
        task=annotation.task,
        question=annotation.question,
        mode=span.mode,
        model=provenance.model,
        adapter=provenance.adapter,
        data_fingerprint=provenance.data_fingerprint,
        prompt_hash=provenance.prompt_hash,
        options=annotation.options,
        answer=annotation.answer,
        reply=reply,
        parsed=parsed.value,
        failure=parsed.failure,
        option_log_probs=tuple(float(value) for value in log_probs) or None,
        latency_s=latency_s,
    )
