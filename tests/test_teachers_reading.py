"""Replies as models write them: what is read, and the reason why the rest is not."""

import json

import pytest

from autodrive.teachers.reading import Unreadable, read_reply
from autodrive.teachers.writers import AspectPairs, Caption, Choice, ShortPairs

CAPTION = '{"caption": "a road"}'


@pytest.mark.parametrize(
    "text",
    [
        CAPTION,
        f"  \n{CAPTION}\n",
        f"```json\n{CAPTION}\n```",
        f"Sure! Here is the JSON {{as asked}}:\n```\n{CAPTION}\n```\nI hope it helps.",
        f'<think>Perhaps {{"caption": "a field"}}? No.</think>\n{CAPTION}',
        '{\n  "caption"\n:\t"a road"}',
        '{"caption": "a \\u0072oad"}',
    ],
)
def test_one_object_is_read_whatever_surrounds_it(text: str):
    assert read_reply(text, Caption).caption == "a road"


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("", "empty", ""),
        (" \n", "empty", ""),
        ("<think>hm</think>", "empty", ""),
        (f"<think>Perhaps {CAPTION}? No, rather", "cut_off", "trace"),
        ("A road.", "no_json", "A road."),
        ('["a road"]', "no_json", ""),
        ("{caption: a road}", "no_json", ""),
        ('{"caption": "a ro', "cut_off", ""),
        ('{"caption"', "cut_off", ""),
        ('```json\n{"caption": "a road",\n```', "cut_off", ""),
        ('{"caption": "a road"', "cut_off", ""),
        ('{"caption": "a "quiet" road"}', "broken_json", "character"),
        ("{\"caption\": 'a road'}", "broken_json", ""),
        ('{"caption": "a\nroad"}', "broken_json", ""),
        ('{"caption": NaN}', "broken_json", "NaN"),
        ('{"caption": "a", "caption": "b"}', "broken_json", "twice"),
        ('{"caption": ' + '{"a": ' * 100_000, "broken_json", "deep"),
        (f"{CAPTION} or {CAPTION}", "several_objects", "2"),
        ('{"caption": "a road", "mood": "calm"}', "wrong_schema", "mood"),
        ('{"text": "a road"}', "wrong_schema", ""),
        ("{}", "wrong_schema", "caption"),
        ('{"caption": 3}', "wrong_schema", "caption"),
        ('{"caption": " "}', "wrong_schema", "caption"),
        ('{"caption": null}', "wrong_schema", "caption"),
        ('{"caption": ["a road"]}', "wrong_schema", "caption"),
        ('{"caption": "\\ud83d"}', "wrong_schema", ""),
        ('{"reply": {"caption": "a road"}}', "wrong_schema", ""),
    ],
)
def test_everything_else_has_a_reason(text: str, reason: str, detail: str):
    with pytest.raises(Unreadable) as caught:
        read_reply(text, Caption)
    assert caught.value.reason == reason
    assert detail in caught.value.detail


def test_a_whole_object_inside_a_broken_one_is_not_taken_for_the_reply():
    pair = {"aspect": "blame", "question": "Who?", "answer": "Nobody."}
    whole = json.dumps({"pairs": [pair, pair]})
    assert len(read_reply(whole, AspectPairs).pairs) == 2
    for length in range(len(whole) - 1, 1, -1):
        with pytest.raises(Unreadable) as caught:
            read_reply(whole[:length], AspectPairs)
        assert caught.value.reason == "cut_off", whole[:length]


@pytest.mark.parametrize(
    ("pairs", "where"),
    [
        ([], "pairs"),
        ([{"question": "Who?"}], "pairs.0.answer"),
        ([{"question": "Who?", "answer": ""}], "pairs.0.answer"),
    ],
)
def test_one_bad_pair_is_named_by_its_place(pairs: list, where: str):
    with pytest.raises(Unreadable, match=where):
        read_reply(json.dumps({"pairs": pairs}), ShortPairs)


def test_an_aspect_that_is_none_is_refused():
    with pytest.raises(Unreadable, match="aspect"):
        read_reply('{"pairs": [{"aspect": "mood", "question": "Who?", "answer": "Me."}]}', AspectPairs)


def test_a_choice_keeps_what_was_written_and_judges_nothing():
    assert read_reply('{"reasoning": "<think>x</think>", "answer": "Z"}', Choice).answer == "Z"
