"""What a plan counts, against what a training really does: the same steps, executed and counted."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from student_samples import TEXTS, make_student
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import autodrive.planning.operations as operations
from autodrive.benchmarks.workload import TreeSize, backward_packed, make_tree
from autodrive.mixture.epoch import Part
from autodrive.mixture.mixture import Mixture
from autodrive.planning.activations import activation_bytes, kept_by, twin_of
from autodrive.planning.memory import fixed_bytes
from autodrive.planning.operations import visit_operations, without_trees
from autodrive.planning.workload import PUBLISHED_ANNOTATIONS_PER_VISIT, FrameGroups, Visit, Workload, assumed
from autodrive.students.nvila_recipes import TinyNvila
from autodrive.students.qwen_pretrained import PretrainedQwen2_5_VL
from autodrive.students.qwen_tiny import TinyQwen2_5_VL
from autodrive.students.resolution import Resolution
from autodrive.students.student import Student
from autodrive.students.tuning import FullTuning, LowRankAdapter, make_trainable
from autodrive.trees.clip_tree import TreeRow
from autodrive.trees.layout import TreeLayout, tree_mask
from autodrive.trees.packing import pack_trees

GIB = 2**30
RESOLUTION = Resolution(100, 100)
# Wider than a twin, of other proportions and another depth.
SPEC = TinyQwen2_5_VL(
    "other",
    vision_layers=2,
    vision_width=128,
    vision_heads=4,
    vision_mlp=342,
    text_layers=4,
    text_width=192,
    text_heads=6,
    text_kv_heads=2,
    text_mlp=512,
)
VISIT = Visit(FrameGroups(4, 10, 10), 16, 4, 40, 12)
# Squares of 3 x 3 patches leave a rest of 10 x 10; features of two frames are averaged; the last block is not read.
SQUARES = TinyNvila(
    "squares",
    projector="lite",
    frame_side=140,
    vision_layers=3,
    vision_width=128,
    vision_heads=4,
    vision_mlp=342,
    text_layers=4,
    text_width=192,
    text_heads=6,
    text_kv_heads=2,
    text_mlp=512,
    pooled_frames=2,
)
SQUARES_VISIT = Visit(FrameGroups(4, 4, 4), 4 + 15, 4, 40, 12)
SPECS = {"windows": (SPEC, VISIT), "squares": (SQUARES, SQUARES_VISIT)}


def full(student: Student) -> None:
    make_trainable(student.towers, FullTuning(), (), 0)


def frozen_vision(student: Student) -> None:
    make_trainable(student.towers, FullTuning(), ("vision", "projector"), 0)


def frozen_tower(student: Student) -> None:
    """The tower alone: no gradient goes through its blocks, though what projects its features is trained."""
    make_trainable(student.towers, FullTuning(), ("vision",), 0)


def dora(student: Student) -> None:
    make_trainable(student.towers, LowRankAdapter("dora", 8, "2r", 0.0, {"language": "all"}), (), 0)


def ready(prepare: Any, name: str = "windows") -> tuple[Student, TreeRow]:
    spec, visit = SPECS[name]
    student = spec.build(TEXTS * 3, RESOLUTION, 0).train()
    prepare(student)
    size = TreeSize(visit.prefix_tokens, int(visit.annotations), visit.prompt_tokens, visit.target_tokens)
    (row,) = pack_trees([make_tree(student, size)], 10**9)
    assert row.num_tokens == visit.tokens
    return student, row


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("prepare", [full, frozen_vision, frozen_tower])
@pytest.mark.parametrize("name", SPECS)
def test_matrix_products_of_a_step_are_those_that_torch_counts(name: str, prepare, recompute: bool, monkeypatch):
    student, row = ready(prepare, name)
    if recompute:
        student.checkpoint_activations()
    with FlopCounterMode(display=False) as counter:  # which does not know attention on a CPU
        backward_packed(student, [row])
    monkeypatch.setattr(operations, "_attention", lambda *_: operations.Operations())
    assert visit_operations(student, SPECS[name][1], recompute).total == counter.get_total_flops()


def test_pairs_are_those_of_the_tree_mask():
    _, row = ready(full)
    mask = tree_mask(TreeLayout.of(row))
    assert VISIT.attended_pairs == int(mask.sum())
    assert VISIT.supervised_pairs == int(mask[row.source_positions].sum())


@pytest.mark.parametrize(("rows", "columns"), [(8, 15), (3, 3), (5, 1)])
def test_pairs_of_patches_are_those_of_the_vision_tower(rows: int, columns: int):
    """One block attends within windows, the other to a whole group of frames."""
    visual = make_student().model.model.visual
    visual.fullatt_block_indexes = [1]
    lengths: list[torch.Tensor] = []
    for block in cast(Any, visual).blocks:
        block.attn.register_forward_pre_hook(
            lambda _, __, keywords: lengths.append(keywords["cu_seqlens"].diff()), with_kwargs=True
        )
    video = FrameGroups(2, rows, columns)
    visual(torch.zeros(4 * video.tokens, 1176, dtype=torch.uint8), grid_thw=torch.tensor([[2, 2 * rows, 2 * columns]]))
    windows, whole = (int((each**2).sum()) for each in lengths)
    sizes = make_student().anatomy()
    assert operations._window_pairs(video, sizes) == windows
    assert operations._full_pairs(video, sizes) == whole


def test_pairs_of_patches_are_those_of_a_tower_that_sees_frames_apart():
    student, row = ready(full, "squares")
    seen: list[torch.Size] = []
    student.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    student.embed(row)
    (shape,) = seen
    assert operations._full_pairs(SQUARES_VISIT.video, student.anatomy()) == shape[0] * shape[1] ** 2
    assert len(student.blocks) == student.anatomy().blocks == SQUARES.vision_layers - 1


@pytest.mark.parametrize(("prefix", "with_trees", "separate"), [(1500, 119, 620), (4000, 267, 1639), (8000, 519, 3379)])
def test_a_7b_takes_what_was_worked_out_by_hand(prefix: int, with_trees: float, separate: float):
    """Seven branches of 120 tokens, 40 of them supervised, in teraFLOP; the last layer computed for all tokens."""
    student = PretrainedQwen2_5_VL("7b", "Qwen/Qwen2.5-VL-7B-Instruct").sketch(RESOLUTION)
    visit = Visit(FrameGroups(prefix // 100, 10, 10), 0, 7, 80, 40)
    assert visit_operations(student, visit, False).total / 1e12 == pytest.approx(with_trees, rel=0.04)
    assert without_trees(student, visit, False).total / 1e12 == pytest.approx(separate, rel=0.04)


@contextlib.contextmanager
def kept_bytes(student: Student, row: TreeRow) -> Iterator[list[float]]:
    """Bytes of all that autograd keeps meanwhile, without weights and their copies."""
    shapes = {shape for p in student.parameters() for shape in (tuple(p.shape), tuple(p.shape[::-1]))}
    storages: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tuple(tensor.shape) not in shapes:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    total: list[float] = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield total
    total.append(sum(count for count, _ in storages.values()))


@pytest.mark.parametrize(
    ("name", "prepare", "autocast"),
    [
        ("windows", full, False),
        ("windows", full, True),
        ("windows", frozen_vision, True),
        ("windows", dora, True),
        ("squares", full, False),
        ("squares", dora, True),
    ],
)
def test_the_activations_of_a_student_are_told_from_its_twin(name: str, prepare, autocast: bool):
    student, row = ready(prepare, name)
    spec, visit = SPECS[name]
    with kept_bytes(student, row) as measured, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        torch.nn.functional.cross_entropy(student.supervised_logits(row).float(), row.target_ids)
    twin = twin_of(spec.sketch(RESOLUTION))
    prepare(twin.student)
    estimate = activation_bytes(student, kept_by(twin, autocast), visit, 1, recompute=False)
    assert estimate == pytest.approx(measured[0], rel=0.1)


def test_recomputed_activations_are_a_layer_s_inputs_and_one_layer():
    twin = twin_of(SPEC.sketch(RESOLUTION))
    kept = kept_by(twin, False)
    whole, recomputed = (activation_bytes(twin.student, kept, VISIT, 1, recompute) for recompute in (False, True))
    assert kept.layer_input == 4 * SPEC.text_width
    assert kept.block_input == 4 * SPEC.vision_width
    assert recomputed < whole / 2


ADAMW = {"float32": torch.optim.AdamW, "8 bits": "AdamW8bit"}


@pytest.mark.parametrize(("kind", "bytes_of_a_value"), [("float32", 8), ("8 bits", 2 + 2 * 4 / 256)])
def test_an_optimiser_s_memory_is_what_it_really_keeps(kind: str, bytes_of_a_value: float):
    made = ADAMW[kind] if kind == "float32" else getattr(pytest.importorskip("bitsandbytes").optim, ADAMW[kind])
    model = nn.Linear(1000, 5000, bias=False, device="meta")
    found = fixed_bytes(model, lambda parameters: made(parameters, lr=1e-3), autocast=True)
    assert (found.weights, found.gradients) == (4 * 5_000_000, 4 * 5_000_000)
    assert found.optimizer == pytest.approx(bytes_of_a_value * 5_000_000, rel=2e-3)
    assert found.copies == 2 * 5_000_000


def test_nothing_is_remembered_of_what_is_not_trained():
    model = nn.Linear(1000, 5000, bias=False, device="meta", dtype=torch.bfloat16).requires_grad_(False)
    found = fixed_bytes(model, torch.optim.AdamW, autocast=True)
    assert (found.weights, found.gradients, found.optimizer, found.copies) == (2 * 5_000_000, 0, 0, 0)


def test_full_fine_tuning_of_a_7b_in_float32_takes_124_gib_before_activations():
    student = PretrainedQwen2_5_VL("7b", "Qwen/Qwen2.5-VL-7B-Instruct", dtype="float32").sketch(RESOLUTION)
    found = fixed_bytes(student.model, torch.optim.AdamW, autocast=True)
    assert found.settled / GIB == pytest.approx(123.6, abs=0.05)


def test_a_visit_teaches_what_the_mixture_says_where_that_is_known():
    workload = Workload(1280, 720, 100, None, 40, 68, 12)
    mixture = Mixture(parts={"mcq": Part(per_visit=1), "closed_qa": Part(per_visit=2)})
    assert assumed(workload, mixture, ["mcq", "closed_qa"]).annotations_per_visit == 3
    assert assumed(workload, mixture, ["mcq", "file"]).annotations_per_visit == PUBLISHED_ANNOTATIONS_PER_VISIT
    given = replace(workload, annotations_per_visit=7)
    assert assumed(given, mixture, ["mcq"]) == given
