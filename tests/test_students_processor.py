import pickle
from dataclasses import replace

import pytest
import torch
from student_samples import (
    AFTER,
    BEFORE,
    BRANCHES,
    CONVERSATION,
    FAMILIES,
    MCQ,
    SYSTEM,
    make_sample,
    make_student,
    one_turn,
)

from autodrive.errors import InputError
from autodrive.students.qwen_processor import QwenProcessor
from autodrive.students.qwen_tokenizer import SPECIAL_TOKENS, VIDEO_PAD
from autodrive.students.resolution import Resolution
from autodrive.trees.packing import pack_trees
from autodrive.trees.sample import Branch, Turn, Video


@pytest.fixture(scope="module")
def processor() -> QwenProcessor:
    return make_student().processor


def test_the_layout_is_chatml(processor):
    tree = processor.encode(make_sample(num_frames=4, height=28, width=56))
    decode = processor.tokenizer.decode
    assert decode(tree.prefix_ids) == (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|vision_start|>{VIDEO_PAD * 4}<|vision_end|>"
    )
    assert decode(tree.branches[0].turns[0].prompt_ids) == f"{MCQ}<|im_end|>\n<|im_start|>assistant\n"
    assert decode(tree.branches[0].turns[0].target_ids) == "B<|im_end|>"


def test_parts_and_turns_in_chatml(processor):
    sample = make_sample(num_frames=4, height=28, width=56, branches=(CONVERSATION,))
    tree = processor.encode(replace(sample, prefix=(BEFORE, *sample.prefix, AFTER)))
    decode = processor.tokenizer.decode
    video = f"<|vision_start|>{VIDEO_PAD * 4}<|vision_end|>"
    assert decode(tree.prefix_ids).endswith(f"<|im_start|>user\n{BEFORE.text}{video}{AFTER.text}")
    first, second, third = tree.branches[0].turns
    assert decode(first.target_ids) == "heavy rain<|im_end|>"
    opening = "\n<|im_start|>user\nDescribe the clip.<|im_end|>\n<|im_start|>assistant\n"
    assert decode(second.prompt_ids) == opening
    assert third.target_ids
    text_ids = tree.prefix_positions[:, -len(processor.tokenizer(AFTER.text)["input_ids"]) :]
    assert text_ids[0].tolist() == list(range(int(text_ids[0, 0]), tree.branch_start))
    assert torch.equal(text_ids, text_ids[:1].expand(3, -1))


def test_visual_tokens_are_known_before_a_frame_is_read(processor):
    for num_frames, width, height in ((7, 320, 180), (1, 84, 56)):
        size = processor.frame_size(width, height)
        tree = processor.encode(make_sample(num_frames, *size))
        pad_id = processor.tokenizer.convert_tokens_to_ids(VIDEO_PAD)
        assert processor.visual_tokens(num_frames, width, height) == tree.prefix_ids.count(pad_id)


def test_only_the_last_turn_may_be_without_an_answer():
    with pytest.raises(ValueError, match="a target in every turn but the last"):
        Branch("a", (Turn("One?"), Turn("Two?", "2")))


def test_a_whole_conversation_tokenises_as_qwens_template_does(processor):
    """Pieces joined at special tokens are the ids of the joined text."""
    tree = processor.encode(make_sample(num_frames=2, height=28, width=28, branches=(*BRANCHES, CONVERSATION)))
    ids = tree.prefix_ids + tree.branches[-1].ids
    whole = processor.tokenizer.decode(ids)
    assert processor.tokenizer(whole, add_special_tokens=False)["input_ids"] == ids


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_text_that_spells_a_special_token_stays_text(processor, token):
    honest = processor.encode(make_sample(branches=(one_turn("a", "x", "y", ("z",)),)))
    attack = one_turn("a", f"x {token}", f"y {token}", (f"z{token}",))
    tree = processor.encode(replace(make_sample(branches=(attack,)), system=f"{SYSTEM} {token}"))
    token_id = processor.tokenizer.convert_tokens_to_ids(token)
    for ids, reference in (
        (tree.prefix_ids, honest.prefix_ids),
        (tree.branches[0].turns[0].prompt_ids, honest.branches[0].turns[0].prompt_ids),
        (tree.branches[0].turns[0].target_ids, honest.branches[0].turns[0].target_ids),
        (list(tree.branches[0].option_ids[0]), list(honest.branches[0].option_ids[0])),
    ):
        assert ids.count(token_id) == reference.count(token_id)


def test_placeholders_equal_visual_tokens(processor):
    for frames, height, width in ((1, 28, 28), (7, 56, 84), (30, 28, 112)):
        tree = processor.encode(make_sample(num_frames=frames, height=height, width=width))
        pad_id = processor.tokenizer.convert_tokens_to_ids(VIDEO_PAD)
        assert (
            tree.prefix_ids.count(pad_id)
            == len(tree.visual.patches_PD) // 4
            == (frames + 1) // 2 * height * width // 784
        )
        assert tree.prefix_positions.shape == (3, len(tree.prefix_ids))


def test_a_stray_placeholder_is_caught_by_the_model():
    """Text cannot spell one; a tree that was put together wrongly must not train."""
    student = make_student()
    tree = student.processor.encode(make_sample())
    pad_id = student.processor.tokenizer.convert_tokens_to_ids(VIDEO_PAD)
    turn = tree.branches[0].turns[0]
    stray = replace(tree.branches[0], turns=(replace(turn, prompt_ids=[pad_id, *turn.prompt_ids]),))
    with pytest.raises(ValueError, match="do not match"):
        student.supervised_logits(pack_trees([replace(tree, branches=(stray,))], 10**6)[0])


def test_frames_of_another_size_are_refused(processor):
    with pytest.raises(InputError, match="frame_size"):
        processor.encode(make_sample(height=50))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_longer_video_takes_as_many_more_tokens_as_are_counted_before_it_is_decoded(family):
    """Rows are dealt to processes by this count; that of stamps follows from the times."""
    processor = FAMILIES[family]().processor
    height, width = processor.frame_size(84, 56)
    samples = [make_sample(number, height, width, fps=0.5) for number in (processor.frames_per_group, 27)]
    shorter, longer = (len(processor.encode(sample).prefix_ids) for sample in samples)
    videos = [part for sample in samples for part in sample.prefix if isinstance(part, Video)]
    counted = [processor.video_tokens(video.frames.timestamps_s, 84, 56) for video in videos]
    assert counted[1] - counted[0] == longer - shorter


def test_it_travels_to_loader_workers(processor):
    sample = make_sample()
    copy = pickle.loads(pickle.dumps(processor))
    first, second = processor.encode(sample), copy.encode(sample)
    assert (first.prefix_ids, first.branches) == (second.prefix_ids, second.branches)
    assert torch.equal(first.prefix_positions, second.prefix_positions)


def test_settings_read_back(processor):
    changed = replace(processor, resolution=Resolution(12, 3), position_mode="real_time")
    assert QwenProcessor.from_settings(processor.tokenizer, changed.settings()) == changed


def test_the_asked_frame_rate_moves_the_temporal_ids_and_nothing_else(processor):
    sample = make_sample(num_frames=8)
    (video,) = sample.prefix
    assert isinstance(video, Video)
    slow, fast = (processor.encode(replace(sample, prefix=(replace(video, fps=fps),))) for fps in (1.0, 4.0))
    assert slow.prefix_ids == fast.prefix_ids
    video = slice(slow.prefix_ids.index(processor.tokenizer.convert_tokens_to_ids(VIDEO_PAD)), -1)
    assert slow.prefix_positions[0, video].max() > fast.prefix_positions[0, video].max()
    assert torch.equal(slow.prefix_positions[1:, video], fast.prefix_positions[1:, video])


def test_real_time_reads_the_measured_timestamps(processor):
    real = replace(processor, position_mode="real_time")
    sample = make_sample(num_frames=4)
    (video,) = sample.prefix
    assert isinstance(video, Video)
    slower = replace(video.frames, timestamps_s=video.frames.timestamps_s * 1.5)
    late = replace(sample, prefix=(replace(video, frames=slower),))
    times = real.encode(sample).prefix_positions[0], real.encode(late).prefix_positions[0]
    assert times[1].is_floating_point()
    assert not torch.equal(*times)
    unchanged = [processor.encode(one).prefix_positions for one in (sample, late)]
    assert torch.equal(*unchanged)


def test_the_prompt_does_not_hold_the_answer(processor):
    poisoned = replace(BRANCHES[0], turns=(Turn(MCQ, "POISON"),))
    tree = processor.encode(make_sample(branches=(poisoned,)))
    assert "POISON" not in processor.tokenizer.decode(tree.prefix_ids + tree.branches[0].turns[0].prompt_ids)
