"""What is Qwen3-VL's own: features for several layers, stamps of time, sizes of the released ones."""

from typing import Any, cast

import pytest
import torch
from student_samples import FAMILIES, make_frames, make_sample, make_trees, plain_logits
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor as StockProcessor

from autodrive.students.qwen3_processor import Qwen3VLProcessor, stamp_times
from autodrive.students.qwen3_student import Qwen3VLStudent
from autodrive.students.qwen_tokenizer import VIDEO_PAD, VISION_END, VISION_START
from autodrive.trees.packing import pack_trees


@pytest.fixture(scope="module")
def student() -> Qwen3VLStudent:
    return cast(Qwen3VLStudent, FAMILIES["qwen3_vl"]().eval())


@torch.no_grad()
def test_every_layer_that_takes_features_equals_that_of_separate_sequences(student: Qwen3VLStudent):
    """Two trees of different length in one row: a misplaced feature shows here before it does in a loss."""
    trees = make_trees(student, {"num_frames": 4, "height": 84, "width": 112, "fps": 2.0})
    longer, shorter = trees[0], student.processor.encode(make_sample(num_frames=7, height=56, width=28, seed=3))
    (row,) = pack_trees([longer, shorter], 10**6)
    stock = student.stock_model()
    taken = len(student.model.model.visual.deepstack_visual_indexes)
    assert taken == len(student.model.model.language_model.layers) == 2
    ours, theirs = _states(student), _states(stock)
    student.supervised_logits(row)
    packed = [state[0] for state in ours]
    for tree, span in zip((longer, shorter), row.trees, strict=True):
        first = tree.branches[0]
        theirs.clear()
        plain_logits(stock, student, tree, first.ids)
        assert len(theirs) == len(packed) == taken + 1
        own = slice(span.start, span.prefix_end + len(first.ids))
        for layer, (mine, alone) in enumerate(zip(packed, theirs, strict=True)):
            assert torch.allclose(mine[own], alone[0], atol=1e-4), layer


def _states(holder: Any) -> list[torch.Tensor]:
    """What goes into each layer of a language model, deepstack features added, and into the norm behind the last."""
    model = (holder.model if isinstance(holder, Qwen3VLStudent) else holder).model.language_model
    found: list[torch.Tensor] = []
    for part in (*model.layers, model.norm):
        part.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach().clone()))
    return found


def stock_stamps(indices: list[int], source_fps: float) -> list[float]:
    stock = StockProcessor.__new__(StockProcessor)  # its constructor asks for torchvision
    return stock._calculate_timestamps(list(indices), source_fps, 2)


@pytest.mark.parametrize(("count", "step", "source_fps"), [(8, 6, 30.0), (7, 15, 30.0), (12, 1, 30.0), (1, 1, 25.0)])
def test_stamps_are_those_of_transformers_processor(count: int, step: int, source_fps: float):
    """Wherever in its file a clip begins: to the tenth, where halves are rounded either way by a last digit."""
    indices = list(range(0, count * step, step))
    expected = stock_stamps(indices, source_fps)
    for first in (0, 180, 547):
        ours = stamp_times((first + torch.tensor(indices)).double() / source_fps)
        assert ours.tolist() == pytest.approx(expected)
        assert [f"{time_s:.1f}" for time_s in ours] == [f"{time_s:.1f}" for time_s in expected]


def test_a_stamp_stands_before_every_temporal_patch(student: Qwen3VLStudent):
    processor = student.processor
    tree = processor.encode(make_sample(num_frames=5, height=28, width=56, fps=2.0))
    text = str(processor.tokenizer.decode(tree.prefix_ids))
    video = f"{VISION_START}{VIDEO_PAD * 2}{VISION_END}"
    assert text.endswith(f"<0.2 seconds>{video}<1.2 seconds>{video}<2.0 seconds>{video}")


def test_positions_are_those_that_transformers_computes(student: Qwen3VLStudent):
    tree = student.processor.encode(make_sample(num_frames=5, height=56, width=84))
    inputs: dict[str, Any] = student.stock_inputs(tree, [])
    expected, _ = student.model.model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], video_grid_thw=inputs["video_grid_thw"]
    )
    assert torch.equal(tree.prefix_positions, expected[:, 0])
    assert tree.branch_start == expected.max() + 1


def test_at_thirty_frames_a_second_neighbours_share_a_stamp():
    frames = make_frames(12, 28, 28, 30.0)
    stamps = [f"{time_s:.1f}" for time_s in stamp_times(frames.timestamps_s).tolist()]
    assert stamps == ["0.0", "0.1", "0.1", "0.2", "0.3", "0.3"]
    assert isinstance(FAMILIES["qwen3_vl"]().processor, Qwen3VLProcessor)
