import pytest
import torch

from autodrive.students.qwen_positions import prefix_positions, real_times, reference_times


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (1, [0, 4, 8, 12, 16]),
        (2, [0, 2, 4, 6, 8]),
        (4, [0, 1, 2, 3, 4]),
        (8, [0, 0, 1, 1, 2]),  # a grid every 0.25 s, two ids per second
        (15, [0, 0, 0, 0, 1]),  # grids at 0, .133, .267, .4, .533 s
        (30, [0, 0, 0, 0, 0]),
    ],
)
def test_reference_times_by_hand_at_two_ids_per_second(fps, expected):
    assert reference_times(5, fps, tokens_per_second=2).tolist() == expected


def test_whole_numbers_on_paper_are_not_floored_to_one_less():
    # 15 grids of 2/30 s are exactly one second; 5 grids of 2/25 s at 15 ids per second are exactly id 6.
    assert reference_times(46, 30, 2)[[14, 15, 29, 30, 45]].tolist() == [1, 2, 3, 4, 6]
    assert reference_times(6, 25, 15).tolist() == [0, 1, 2, 3, 4, 6]


@pytest.mark.parametrize("fps", [1, 2, 3, 4, 6, 8, 10, 15, 24, 29.97, 30])
def test_reference_times_equal_the_released_trainers_arithmetic(fps):
    """qwen-vl-finetune, get_rope_index_25: arange x second_per_grid_t x tokens_per_second, then .long()."""
    for tokens_per_second in (2, 4):
        trainer = (torch.arange(300) * (2 / fps) * tokens_per_second).long()
        assert torch.equal(reference_times(300, fps, tokens_per_second), trainer)


def test_fifteen_ids_per_second_tell_every_grid_at_thirty_fps_apart():
    assert reference_times(60, 30, 15).tolist() == list(range(60))


def test_real_times_are_measured_times_neither_gridded_nor_floored():
    timestamps = torch.tensor([3.0, 3.1, 3.25, 3.3, 3.6], dtype=torch.float64)
    assert real_times(timestamps, tokens_per_second=2).tolist() == pytest.approx([0, 0.5, 1.2])


def test_a_prefix_by_hand_where_space_is_larger_than_time():
    # 2 text tokens, 2 temporal patches of 2 x 4 patches (1 x 2 tokens), 1 text token.
    positions, branch_start = prefix_positions([2, (torch.tensor([0, 1]), (2, 4)), 1])
    assert positions.tolist() == [
        [0, 1, 2, 2, 3, 3, 4],
        [0, 1, 2, 2, 2, 2, 4],
        [0, 1, 2, 3, 2, 3, 4],
    ]
    assert branch_start == 5


def test_text_after_a_long_video_starts_past_the_last_temporal_id():
    # 40 s at 2 fps, 24 x 40 patches, 16 tokens before: the reference column of the design notes.
    positions, branch_start = prefix_positions([16, (reference_times(40, 2, 2), (24, 40)), 1])
    assert positions[0, 16].item() == 16
    assert positions[0, -2].item() == 94
    assert positions[:, -1].tolist() == [95, 95, 95]
    assert branch_start == 96
    assert branch_start == positions.max().item() + 1


def test_four_fps_does_not_collapse_time():
    positions, _ = prefix_positions([16, (reference_times(80, 4, 2), (24, 40)), 1])
    assert positions[0, 16:-1].max().item() == 95


def test_real_time_positions_are_floats_and_text_goes_on_at_the_next_whole_id():
    positions, branch_start = prefix_positions([3, (torch.tensor([0.0, 1.4, 2.7]), (2, 2)), 2])
    assert positions.dtype == torch.float32
    assert positions[0].tolist() == pytest.approx([0, 1, 2, 3, 4.4, 5.7, 6, 7])
    assert branch_start == 8


def test_a_second_video_goes_on_after_all_that_was_read():
    video = (torch.tensor([0, 5]), (2, 2))  # time is its longest axis
    positions, branch_start = prefix_positions([1, video, 2, video])
    assert positions[0].tolist() == [0, 1, 6, 7, 8, 9, 14]
    assert positions[2].tolist() == [0, 1, 1, 7, 8, 9, 9]
    assert branch_start == 15


def test_text_alone_counts_up():
    positions, branch_start = prefix_positions([3])
    assert positions.tolist() == [[0, 1, 2]] * 3
    assert branch_start == 3
