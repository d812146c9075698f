"""Asks a student every question of a split and keeps its replies: the evaluation loop."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from autodrive.evaluation.parsers import parse_reply
from autodrive.labels import LabelSet
from autodrive.mixture.clip_tree import BranchSpan, TreeBatch
from autodrive.mixture.mixture import LabelledClip
from autodrive.prompts import option_texts
from autodrive.schema import Annotation, Clip, Mode, Prediction
from autodrive.students.qwen2_5_vl import QwenStudent


@dataclass(frozen=True)
class Provenance:
    """What every prediction of a run says about where it came from."""

    model: str
    adapter: str | None
    data_fingerprint: str
    prompt_hash: str


def answer_questions(
    student: QwenStudent,
    batches: Iterable[TreeBatch],
    clips: Sequence[LabelledClip],
    labels: LabelSet,
    mode: Mode,
    max_new_tokens: int,
    provenance: Provenance,
    on_batch: Callable[[int], None] = lambda num_clips: None,
) -> list[Prediction]:
    """Generate a reply to, and score the options of, every annotation of every clip.

    Args:
        student: the model, on any device; put in evaluation mode here.
        batches: clip trees without targets, of these clips.
        clips: the clips with their annotations.
        labels: gives the options' display words to the parser.
        mode: inference mode in which the batches' prompts were written.
        max_new_tokens: longest reply.
        provenance: copied into every prediction.
        on_batch: told how many clips were done, for a progress bar.

    Returns:
        One prediction per annotation, in the batches' order.
    """
    known = {annotation.id: (c.clip, annotation) for c in clips for annotation in c.annotations}
    device = next(student.parameters()).device
    student.eval()
    predictions: list[Prediction] = []
    with torch.inference_mode():
        for batch in batches:
            began = time.perf_counter()
            on_device = batch.to(device)
            scores = student.score_options(on_device)
            replies = student.generate(on_device, max_new_tokens)
            latency_s = (time.perf_counter() - began) / max(1, len(batch.spans))
            for span, log_probs, reply in zip(batch.spans, scores, replies, strict=True):
                clip, annotation = known[span.annotation_id]
                predictions.append(
                    _prediction(span, clip, annotation, reply, log_probs, mode, labels, provenance, latency_s)
                )
            on_batch(len(batch.clip_ids))
    return predictions


def _prediction(
    span: BranchSpan,
    clip: Clip,
    annotation: Annotation,
    reply: str,
    log_probs: Sequence[float],
    mode: Mode,
    labels: LabelSet,
    provenance: Provenance,
    latency_s: float,
) -> Prediction:
    question = annotation.without_answer()
    lettered = question.task == "mcq"
    parsed = parse_reply(reply, mode, question.options, option_texts(question, labels), lettered=lettered)
    return Prediction(
        annotation_id=span.annotation_id,
        clip_id=clip.id,
        source_video_id=clip.source_video_id,
        task=annotation.task,
        question=annotation.question,
        mode=mode,
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
