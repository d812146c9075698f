"""What transformers alone makes of a student's questions: its model class, its positions, its template, its frames."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoVideoProcessor, PreTrainedModel

from autodrive.exporting.parity import Said, without_runs
from autodrive.exporting.verifying import Answer, PlainSequence, compare, plain_sequences, spoken, stock_answers
from autodrive.students.chat_processor import ChatProcessor
from autodrive.students.student import Student
from autodrive.trees.sample import ClipSample, Video

PIXELS = "pixel_values_videos"  # what transformers' video processors call patches
MOST_PIXEL_DIFFERENCE = 1e-3  # of normalised values: rounding in another order


class StockSide(NamedTuple):
    """What transformers makes of all questions.

    Attributes:
        said: Its scores and replies, question after question.
        found: What else differs, a line each.
        not_compared: What could not be compared, and why.
    """

    said: list[Said]
    found: list[str]
    not_compared: dict[str, str]


def stock_side(
    student: Student, folder: Path, samples: Sequence[ClipSample], answers: Sequence[Answer], tolerance: float
) -> StockSide:
    """Ask transformers' own model everything that a student was asked.

    The model is not told positions: it numbers them itself, as whoever loads the checkpoint has it. Where its scores
    differ for that, and agree once it is handed the student's positions, that is said.

    Args:
        student: The student, in float32.
        folder: Its files, where transformers looks for a template and a video processor.
        samples: Clips with questions.
        answers: What the student made of them.
        tolerance: Most by which the log-probability of an option may differ.
    """
    model, sequences = student.stock_model(), plain_sequences(student, answers)
    fps = {s.clip_id: part.fps for s in samples for part in s.prefix if isinstance(part, Video)}
    alone = stock_answers(model, _numbered_by_itself(student, model, sequences, fps), answers)
    found, not_compared = [], {}
    if not isinstance(model, PreTrainedModel):
        why = f"transformers has no class for {student.family} students: its towers are compared"
        not_compared["what joins the towers"] = f"{why}, and what joins them here is this project's own on both sides"
    told = stock_answers(model, sequences, answers)
    if not compare(answers, alone).largest <= tolerance and compare(answers, told).largest <= tolerance:
        found.append("positions: transformers numbers a video's otherwise; handed the student's, its scores are equal")
    template, why_not = _template_ids(student, samples)
    if why_not is not None:
        not_compared["prompt ids"] = why_not
    frames, why_not = _frames(student, folder, samples, answers)
    if why_not is not None:
        not_compared["frames"] = why_not
    said = [
        Said(_reply(student, theirs, ours), theirs.scores, ids=template[number] if template else None)
        for number, (theirs, ours) in enumerate(zip(alone, answers, strict=True))
    ]
    return StockSide(said, found + frames, not_compared)


def _reply(student: Student, theirs: Answer, ours: Answer) -> str:
    """The reply in words; where it leaves the student's, what would come next is not known."""
    pairs = zip(theirs.reply_ids, ours.reply_ids, strict=True)
    first = next((place for place, (a, b) in enumerate(pairs) if a != b), None)
    if first is None:
        return spoken(student, ours)
    return student.processor.decode(theirs.reply_ids[: first + 1]) + "…"


def _numbered_by_itself(
    student: Student, model: nn.Module, sequences: Sequence[PlainSequence], fps: Mapping[str, float]
) -> Iterator[PlainSequence]:
    """The sequences without positions, with what the model numbers a video's by; `fps` is by clip id."""
    wants_seconds = "second_per_grid_ts" in inspect.signature(model.forward).parameters
    for sequence in sequences:
        inputs = {name: value for name, value in sequence.inputs.items() if name != "position_ids"}
        if wants_seconds and PIXELS in inputs:
            seconds = student.processor.frames_per_group / fps[sequence.clip_id]
            inputs["second_per_grid_ts"] = torch.tensor([seconds], device=inputs["input_ids"].device)
        yield replace(sequence, inputs=inputs)


def _template_ids(student: Student, samples: Sequence[ClipSample]) -> tuple[list[tuple[int, ...]], str | None]:
    """Prompts as the checkpoint's own template writes them, question after question; or why there are none."""
    processor = student.processor
    if not isinstance(processor, ChatProcessor) or not processor.tokenizer.chat_template:
        return [], "the checkpoint brings no chat template"
    if processor.tokens_between(1):
        return [], "what stands between frames is written by its processor, not by its template"
    found: list[tuple[int, ...]] = []
    for sample in samples:
        shown = [{"type": "video"} if isinstance(p, Video) else {"type": "text", "text": p.text} for p in sample.prefix]
        for branch in sample.branches:
            asked = [*shown, {"type": "text", "text": branch.turns[0].prompt}]
            messages = [{"role": "system", "content": sample.system}, {"role": "user", "content": asked}]
            text = processor.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = processor.tokenizer(str(text), add_special_tokens=False)["input_ids"]
            found.append(without_runs(ids))  # type: ignore[arg-type]
    return found, None


def _frames(
    student: Student, folder: Path, samples: Sequence[ClipSample], answers: Sequence[Answer]
) -> tuple[list[str], str | None]:
    """How transformers' video processor cuts other patches of the same frames; or why that was not compared."""
    try:
        processor: Any = AutoVideoProcessor.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # whatever a checkpoint without one, or a missing library, makes it raise
        return [], f"no video processor of transformers' can be made ({' '.join(str(error).split())[:120]})"
    trees = {answer.tree.clip_id: answer.tree for answer in answers}
    for sample in samples:
        (video,) = (part for part in sample.prefix if isinstance(part, Video))
        ours = student.stock_inputs(trees[sample.clip_id], [])[PIXELS].float().cpu()
        made = processor(
            videos=[video.frames.frames_TCHW], do_sample_frames=False, do_resize=False, return_tensors="pt"
        )[PIXELS].float()
        if made.shape != ours.shape:
            return [f"frames: {tuple(ours.shape)} patches here, {tuple(made.shape)} from transformers"], None
        largest = float((made - ours).abs().max())
        if largest > MOST_PIXEL_DIFFERENCE:
            return [f"frames: patches differ by up to {largest:.2g}"], None
    return [], None
