"""Strict reading of replies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodrive.tasks import reading
from autodrive.tasks.reading import parse_reply, think_block

OPTIONS = ("near_collision", "normal", "collision")
TEXTS = (
    "Near-collision: the ego vehicle narrowly avoids an impact",
    "Normal driving: no incident happens",
    "Collision: the ego vehicle hits a vehicle, person or object",
)


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("B", "normal"),
        (" B\n", "normal"),
        ("B.", "normal"),
        ("(B)", "normal"),
        ("B)", "normal"),
        ("A:", "near_collision"),
        ("B. Normal driving: no incident happens", "normal"),
        ("(C) collision: the ego vehicle hits a vehicle, person or object.", "collision"),
        ("normal driving: no  incident happens.", "normal"),
    ],
)
def test_a_clear_direct_reply_is_read(reply, value):
    assert parse_reply(reply, "direct", OPTIONS, TEXTS).value == value


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        ("", reading.EMPTY),
        (" \n", reading.EMPTY),
        ("D", reading.LETTER_OUT_OF_RANGE),
        ("D. something", reading.LETTER_OUT_OF_RANGE),
        ("A B", reading.SEVERAL_LETTERS),
        ("A or C", reading.SEVERAL_LETTERS),
        ("A, B and C are possible", reading.SEVERAL_LETTERS),
        ("The answer is B", reading.LETTER_IN_PROSE),
        ("B because nothing happens", reading.LETTER_IN_PROSE),
        ("B. " + TEXTS[2], reading.LETTER_CONTRADICTS_WORDS),
        ("B. nothing happens", reading.LETTER_IN_PROSE),
        ("b", reading.NOT_AN_OPTION),
        ("normal", reading.NOT_AN_OPTION),
        ("I'm not sure", reading.NOT_AN_OPTION),
        ("Normal driving: no incident happens or a collision", reading.NOT_AN_OPTION),
        ("<answer>B</answer>", reading.LETTER_IN_PROSE),
    ],
)
def test_an_unclear_direct_reply_is_a_failure_with_a_reason(reply, failure):
    parsed = parse_reply(reply, "direct", OPTIONS, TEXTS)
    assert (parsed.value, parsed.failure) == (None, failure)


@pytest.mark.parametrize(("reply", "value"), [("YES", "yes"), ("no.", "no"), ("A", None), ("yes no", None), ("", None)])
def test_options_without_letters_are_read_by_their_words_only(reply, value):
    assert parse_reply(reply, "direct", ("yes", "no"), ("yes", "no"), lettered=False).value == value


def test_options_that_read_alike_are_never_chosen_between():
    assert parse_reply("rain", "direct", ("a", "b"), ("Rain", "rain."), lettered=False).failure == "ambiguous_options"
    # "A" is the letter of the first option and the words of the second.
    assert parse_reply("A", "direct", ("x", "y"), ("B", "A")).failure == reading.AMBIGUOUS_OPTIONS


def test_a_well_formed_reasoning_reply_gives_answer_and_trace():
    parsed = parse_reply("<think>the gap\ncloses</think>\n\n<answer>C</answer>\n", "reasoning", OPTIONS, TEXTS)
    assert (parsed.value, parsed.failure, parsed.think) == ("collision", None, "the gap\ncloses")


@pytest.mark.parametrize(
    ("reply", "value", "failure"),
    [
        (f"<think>\nthe gap closes\n</think>\n\n(C) {TEXTS[2]}", "collision", None),
        ("<think>so</think>C", "collision", None),
        ("C", None, reading.MISSING_TAGS),
        ("<think>so C", None, reading.MISSING_TAGS),
        ("<think>so</think> ", None, reading.EMPTY),
        ("<think>a</think><think>b</think>C", None, reading.REPEATED_TAGS),
        ("Well: <think>so</think>C", None, reading.MISPLACED_TAGS),
        ("<think>so</think><answer>C</answer>", None, reading.LETTER_IN_PROSE),
    ],
)
def test_without_an_answer_block_what_follows_the_trace_is_the_answer(reply, value, failure):
    parsed = parse_reply(reply, "reasoning", OPTIONS, TEXTS, answer_block=False)
    assert (parsed.value, parsed.failure) == (value, failure)


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        ("", reading.EMPTY),
        ("C", reading.MISSING_TAGS),
        ("<answer>C</answer>", reading.MISSING_TAGS),
        ("<think>so</think> C", reading.MISSING_TAGS),
        ("<think>so <answer>C</answer>", reading.MISSING_TAGS),
        ("<think>so</think><answer>C", reading.MISSING_TAGS),
        ("<think>a</think><think>b</think><answer>C</answer>", reading.REPEATED_TAGS),
        ("<think>a</think><answer>B</answer><answer>C</answer>", reading.REPEATED_TAGS),
        ("<answer>C</answer><think>so</think>", reading.MISPLACED_TAGS),
        ("<think><answer>C</answer></think>", reading.MISPLACED_TAGS),
        ("</think>so<think><answer>C</answer>", reading.MISPLACED_TAGS),
        ("Well: <think>so</think><answer>C</answer>", reading.MISPLACED_TAGS),
        ("<think>so</think><answer>C</answer> or B", reading.MISPLACED_TAGS),
        ("<think>so</think>hence<answer>C</answer>", reading.MISPLACED_TAGS),
        ("<think>so</think><answer></answer>", reading.EMPTY),
        ("<think>so</think><answer>it is C</answer>", reading.LETTER_IN_PROSE),
    ],
)
def test_a_malformed_reasoning_reply_is_a_failure_with_a_reason(reply, failure):
    parsed = parse_reply(reply, "reasoning", OPTIONS, TEXTS)
    assert (parsed.value, parsed.failure) == (None, failure)


@pytest.mark.parametrize(
    ("reply", "trace"),
    [
        ("<think>so</think><answer>no option at all</answer>", "so"),
        ("<think>so</think>", "so"),
        ("<think> </think><answer>A</answer>", None),
        ("<think>so", None),
        ("first <think>so</think>", None),
        ("A", None),
    ],
)
def test_a_trace_counts_if_its_own_block_is_well_formed(reply, trace):
    assert think_block(reply) == trace


PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "A", "B", "Z", "(C)", ".", " ", "\n", *TEXTS])
    | st.text(max_size=5),
    max_size=8,
).map("".join)


@given(reply=PIECES, mode=st.sampled_from(["direct", "reasoning"]), lettered=st.booleans())
def test_any_text_gives_an_option_or_a_known_failure(reply, mode, lettered):
    parsed = parse_reply(reply, mode, OPTIONS, TEXTS, lettered=lettered)
    assert (parsed.value is None) != (parsed.failure is None)
    assert parsed.value is None or parsed.value in OPTIONS
    assert parsed.failure is None or parsed.failure in reading.FAILURES


@given(trace=st.text(st.characters(blacklist_characters="<>"), max_size=30), position=st.integers(0, 2))
def test_every_rendered_target_is_read_back(trace, position):
    letter = "ABC"[position]
    assert parse_reply(letter, "direct", OPTIONS, TEXTS).value == OPTIONS[position]
    reasoned = parse_reply(f"<think>{trace}</think>\n\n<answer>{letter}</answer>", "reasoning", OPTIONS, TEXTS)
    assert reasoned.value == OPTIONS[position]
    assert reasoned.think == (trace.strip() or None)
