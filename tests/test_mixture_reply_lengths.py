"""Whether the limits of replies fit what is taught."""

from dataclasses import replace

import pytest
from records import make_clip
from run_samples import label_set, task_book
from student_samples import make_student

from autodrive.annotation.supply import AnnotatedClip
from autodrive.mixture.clip_batches import BranchWriter
from autodrive.mixture.reply_lengths import ReplyLength, length_facts, reply_lengths
from autodrive.schema import Annotation

BOOK, LABELS = task_book(), label_set()
TRACE = "From 0.4 s the van ahead brakes. At 1.9 s the gap is gone."


@pytest.fixture(scope="module")
def lengths() -> list[ReplyLength]:
    """Of a clip with a hundred short captions, one long one, and a trace for the class."""
    captions = [Annotation.create("a#0", "caption", "What is seen?", f"A car {i}.", "rule/2") for i in range(100)]
    long = Annotation.create("a#0", "caption", "What is seen?", "car " * 300, "rule/2")
    names = LABELS.shown.names
    trace = Annotation.create(
        "a#0", "reasoning_mcq", "What happens?", "collision", "rule/2", options=names, think=TRACE
    )
    clip = AnnotatedClip(make_clip(), "collision", {"caption": (*captions, long), "reasoning_mcq": (trace,)})
    return reply_lengths([clip], BranchWriter(BOOK, LABELS), make_student().processor)


def of(lengths: list[ReplyLength], task: str, mode: str) -> ReplyLength:
    (found,) = [length for length in lengths if (length.task, length.mode) == (task, mode)]
    return found


def test_one_long_target_of_a_hundred_is_beyond_the_percentile(lengths: list[ReplyLength]):
    captions = of(lengths, "caption", "direct")
    assert captions.percentile < 30
    assert captions.line is None


def test_what_one_task_is_taught_another_with_its_prompt_is_asked_for(lengths: list[ReplyLength]):
    """A trace that `reasoning_mcq` teaches is what `mcq` is asked for in reasoning mode; others put other words."""
    taught, asked = of(lengths, "reasoning_mcq", "reasoning"), of(lengths, "mcq", "reasoning")
    assert asked.taught_by == "reasoning_mcq"
    assert asked.percentile == taught.percentile > len(TRACE.split())
    assert {length.task for length in lengths} == {"caption", "reasoning_mcq", "mcq"}


def test_the_length_is_that_of_the_target_in_tokens_with_its_end(lengths: list[ReplyLength]):
    order = LABELS.shown.names.index("collision")
    target = f"<think>{TRACE}</think>\n\n<answer>{'ABC'[order]}</answer>"
    num_tokens = len(make_student().processor.tokenizer(target)["input_ids"])
    assert of(lengths, "reasoning_mcq", "reasoning").percentile == num_tokens + 1


def test_a_limit_below_it_is_said_with_its_fix(lengths: list[ReplyLength]):
    fits = of(lengths, "mcq", "reasoning")
    short = replace(fits, limit=fits.percentile - 1)
    assert replace(fits, limit=fits.percentile).line is None
    assert short.line is not None
    assert f"prompts.tasks.mcq.max_new_tokens.reasoning={short.limit} cuts replies off" in short.line
    assert short.line.endswith(f"give prompts.tasks.mcq.max_new_tokens.reasoning={fits.percentile}")
    assert length_facts([short])["mcq (reasoning)"]["max_new_tokens"] == short.limit
