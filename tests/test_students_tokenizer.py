import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodrive.students.qwen_tokenizer import SPECIAL_TOKENS, train_tokenizer

TEXTS = ["What happens in the video? A near-collision in heavy rain.", "Answer with A, B or C.", "A", "B"] * 4
TOKENIZER = train_tokenizer(TEXTS, 500)


def encode(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_survives_a_round_trip(text):
    assert TOKENIZER.decode(encode(text)) == text


@pytest.mark.parametrize("letter", "ABCDEF")
def test_option_letters_are_single_tokens(letter):
    assert len(encode(letter)) == 1


def test_special_tokens_are_single_tokens_and_spelt_ones_are_text():
    for token in SPECIAL_TOKENS:
        assert len(TOKENIZER(token)["input_ids"]) == 1
        assert TOKENIZER.convert_tokens_to_ids(token) not in encode(token)
        assert TOKENIZER.decode(encode(token)) == token


def test_words_of_the_texts_are_merged():
    assert len(encode("near-collision")) < len("near-collision") / 2


def test_the_vocabulary_keeps_to_its_limit_and_to_what_the_texts_offer():
    assert len(train_tokenizer(TEXTS, 300)) == 300
    assert len(TOKENIZER) < 500


def test_the_same_texts_give_the_same_tokenizer_in_any_order():
    again = train_tokenizer(reversed(TEXTS), 500)
    assert again.backend_tokenizer.to_str() == TOKENIZER.backend_tokenizer.to_str()
