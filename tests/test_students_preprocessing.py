import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from autodrive.errors import InputError
from autodrive.students.preprocessing import normalise, patchify, smart_frame_size
from autodrive.students.resolution import Resolution, solve_resolution

SIDES = st.integers(8, 2000)


def random_frames(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def test_a_doubled_frame_gives_what_the_image_processor_gives():
    """The image processor repeats its image as the temporal pair."""
    frame = random_frames(1, 224, 420)
    reference = Qwen2VLImageProcessorPil()(
        Image.fromarray(frame[0].permute(1, 2, 0).numpy()),
        return_tensors="pt",
        size={"shortest_edge": 1, "longest_edge": 10**7},
    )
    patches, grid = patchify(frame)
    processor = Qwen2VLImageProcessorPil()
    ours = normalise(patches, torch.tensor(processor.image_mean), torch.tensor(processor.image_std))
    assert list(grid) == reference["image_grid_thw"][0].tolist()
    assert torch.allclose(ours, reference["pixel_values"], atol=2e-6)


def test_different_frames_are_paired_as_a_plain_loop_pairs_them():
    frames = random_frames(4, 56, 84)
    patches, grid = patchify(frames)
    assert grid == (2, 4, 6)
    expected = []
    for time in range(2):
        for token_row in range(2):
            for token_column in range(3):
                for row in (2 * token_row, 2 * token_row + 1):
                    for column in (2 * token_column, 2 * token_column + 1):
                        pair = frames[2 * time : 2 * time + 2, :, 14 * row : 14 * row + 14, 14 * column :][..., :14]
                        expected.append(pair.transpose(0, 1).reshape(-1))  # channel, frame, row, column
    assert torch.equal(patches, torch.stack(expected))


def test_an_odd_frame_count_repeats_the_last_frame():
    frames = random_frames(3, 28, 28)
    padded, grid = patchify(frames)
    assert grid == (2, 2, 2)
    assert torch.equal(padded, patchify(torch.cat([frames, frames[-1:]]))[0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("patch_size", "temporal_patch_size", "merge_size"), [(14, 2, 2), (16, 2, 2), (7, 3, 1)])
def test_patches_are_those_of_one_permutation(dtype, patch_size, temporal_patch_size, merge_size):
    """Rows of pixels are moved as one; moving every pixel by itself must give the same, also from strided frames."""
    side = patch_size * merge_size
    frames = random_frames(6, 3 * side, 4 * side).to(dtype)[:, :, side:]
    cells = frames.reshape(
        6 // temporal_patch_size, temporal_patch_size, 3, 2, merge_size, patch_size, 4, merge_size, patch_size
    )
    patches, grid = patchify(frames, patch_size, temporal_patch_size, merge_size)
    assert grid == (6 // temporal_patch_size, 2 * merge_size, 4 * merge_size)
    assert patches.dtype == dtype
    assert torch.equal(patches, cells.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(math.prod(grid), -1))


def test_patches_stay_in_eight_bits():
    assert patchify(random_frames(2, 28, 28))[0].dtype == torch.uint8


def test_normalise_uses_each_channels_own_mean():
    patches = torch.full((1, 6), 255, dtype=torch.uint8)  # three channels of two pixels
    result = normalise(patches, torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 0.5, 2.0]))
    assert result[0].tolist() == pytest.approx([1, 1, 1, 1, 0, 0], abs=1e-6)


@settings(deadline=None)
@given(width=st.integers(56, 2000), height=st.integers(56, 2000), least=st.integers(1, 64))
def test_frame_size_is_qwens_where_qwens_keeps_to_its_bounds(width, height, least):
    most = 4 * least
    expected = smart_resize(height, width, 28, least * 784, most * 784)
    if least * 784 <= math.prod(expected) <= most * 784:
        assert smart_frame_size(width, height, Resolution(most, least)) == expected


@settings(deadline=None)
@given(width=SIDES, height=SIDES, least=st.integers(1, 128), extra=st.integers(0, 128))
def test_a_temporal_patch_never_exceeds_the_resolution(width, height, least, extra):
    if max(width, height) > 200 * min(width, height):
        return
    rows, columns = (side // 28 for side in smart_frame_size(width, height, Resolution(least + extra, least)))
    assert 1 <= rows * columns <= least + extra


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (720, 1280), (420, 240), (1920, 1080), (640, 480)])
def test_the_papers_resolution_holds_six_seconds_at_thirty_fps(width, height):
    height, width = smart_frame_size(width, height, Resolution.parse("128x32"))
    assert 90 * (height // 28) * (width // 28) <= 11_520
    assert (height // 28) * (width // 28) >= 32


def test_training_frames_of_the_synthetic_world_are_left_alone():
    assert smart_frame_size(112, 56, Resolution(8, 8)) == (56, 112)


def test_a_thread_of_a_frame_is_refused():
    with pytest.raises(InputError, match="200:1"):
        smart_frame_size(4020, 20, Resolution(8, 1))


@pytest.mark.parametrize("text", ["128", "128x", "x32", "axb", "-8x4", "8x4x2", "", "32x128", "0x0", "8.5x4"])
def test_a_resolution_that_makes_no_sense_is_refused_in_one_line(text):
    with pytest.raises(InputError, match="resolution=") as caught:
        Resolution.parse(text)
    assert "\n" not in str(caught.value)


def test_resolution_reads_back_what_it_writes():
    assert Resolution.parse(str(Resolution(128, 32))) == Resolution(128, 32)


def test_auto_resolution_spends_the_budget():
    assert solve_resolution(180, 11_520, 2) == (Resolution(128, 32), 11_520)
    resolution, tokens = solve_resolution(61, 1_000, 2)
    assert resolution.max_tokens == 32
    assert tokens == 31 * 32 <= 1_000


def test_auto_resolution_names_a_budget_that_is_too_small():
    with pytest.raises(InputError, match="resolution=auto"):
        solve_resolution(180, 80, 2)
