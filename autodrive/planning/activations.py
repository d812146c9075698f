"""What a step keeps in memory between its forward and its backward pass: an estimate, taken from a small twin.

The twin has the student's architecture, types, adapter and frozen towers, and widths that are a fraction of the
student's. It reads a small clip tree as a training does, on the CPU, and every tensor that autograd keeps is counted.
Bytes of a token and layer grow with the widths, so that (compare Korthikanti et al. 2022, section 4.1)

    kept = tokens x layers x bytes of a layer and token + patches x blocks x bytes of a block and patch + the rest.

With activations recomputed, every layer keeps its input, and one layer at a time all the rest. Copies of weights in
another type are no part of it. Left out are buffers of kernels, fragments of the allocator and gradients on their way.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from autodrive.benchmarks.workload import RESOLUTION, TreeSize, make_tree, smallest_prefix
from autodrive.planning.workload import Visit
from autodrive.students.student import Student, Twin
from autodrive.trees.packing import pack_trees

TWIN_LAYERS = 3  # the one in the middle stands for all; the last reads what is asked, and is counted by itself
TWIN_TREE = TreeSize(prefix_tokens=215, annotations=3, prompt_tokens=17, target_tokens=6)
# Of a supervised token and entry of the vocabulary: its logit, that in float32, and the logarithm of its softmax.
LOGIT_BYTES = 2 + 4 + 4


@dataclass(frozen=True)
class Kept:
    """Bytes kept for the backward pass of what they grow with; 0 where nothing has a gradient.

    Attributes:
        layer: Of a layer of the language model, for a token.
        layer_input: Its input alone.
        last_layer: Of the last layer, for a token.
        around_layers: Of what is before and behind the layers, for a token.
        block: Of a vision block, for a patch.
        block_input: Its input alone.
        around_blocks: Of what is before and behind the blocks, for a patch.
    """

    layer: float
    layer_input: float
    last_layer: float
    around_layers: float
    block: float
    block_input: float
    around_blocks: float


def twin_of(student: Student) -> Twin:
    """A twin on the CPU with three layers a tower, of the type of the student's weights."""
    return student.twin(TWIN_LAYERS, RESOLUTION)


def kept_by(twin: Twin, autocast: bool) -> Kept:
    """Count on a twin that is ready to be trained what autograd keeps.

    Args:
        twin: The twin; nothing of it is recomputed.
        autocast: Whether a forward pass computes in bfloat16 whatever the type of the weights.
    """
    student = twin.student
    size = replace(TWIN_TREE, prefix_tokens=max(TWIN_TREE.prefix_tokens, smallest_prefix(student)))
    (row,) = pack_trees([make_tree(student, size)], 10**9)
    groups: Counter[str] = Counter()
    inputs: dict[str, float] = {"layer": 0.0, "block": 0.0}
    pixels = twin.pixels(row.visual)
    with _counting(student, pixels, groups, inputs), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        student.train().supervised_logits(row)
    tokens, patches = (
        row.num_tokens * twin.text_scale,
        pixels.nbytes / student.anatomy().patch_bytes * twin.vision_scale,
    )
    return Kept(
        layer=groups["layer"] / tokens,
        layer_input=inputs["layer"] / tokens,
        last_layer=groups["last layer"] / tokens,
        around_layers=groups["around layers"] / tokens,
        block=groups["block"] / patches,
        block_input=inputs["block"] / patches if groups["block"] else 0.0,
        around_blocks=groups["around blocks"] / patches,
    )


def activation_bytes(student: Student, kept: Kept, visit: Visit, visits: float, recompute: bool) -> float:
    """Estimated bytes of one packed row: its pixels, and what is kept for the backward pass.

    Args:
        student: The student, whose weights are not needed.
        kept: What its twin keeps.
        visit: A visit of the row.
        visits: How many of them the row has.
        recompute: Whether activations are recomputed (`method.gradient_checkpointing`).
    """
    sizes = student.anatomy()
    tokens, patches = visits * visit.tokens, visits * visit.video.patches(sizes)
    around = patches * sizes.patch_bytes
    around += tokens * kept.around_layers + patches * kept.around_blocks
    around += visits * visit.supervised_tokens * sizes.vocab_size * LOGIT_BYTES
    if recompute:
        inputs = tokens * sizes.layers * kept.layer_input + patches * sizes.blocks * kept.block_input
        return around + inputs + max(tokens * kept.layer, patches * kept.block)
    layers = (sizes.layers - 1) * kept.layer + kept.last_layer
    return around + tokens * layers + patches * sizes.blocks * kept.block


@contextlib.contextmanager
def _counting(student: Student, pixels: Tensor, groups: Counter[str], inputs: dict[str, float]) -> Iterator[None]:
    """Add up the bytes that autograd keeps meanwhile by where they come from, and the bytes of a layer's input."""
    # Weights are there anyway; their copies in another type do not grow with the tokens. Pixels not with the widths.
    model, places = student.model, _places(student)
    weights = {shape for p in model.parameters() for shape in (tuple(p.shape), tuple(p.shape[::-1]))}
    known = {tensor.untyped_storage().data_ptr() for tensor in (pixels, *model.parameters())}
    running: list[nn.Module] = []
    kept: list[Tensor] = []  # alive, so that no storage is taken for another one

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known and tuple(tensor.shape) not in weights:
            known.add(storage.data_ptr())
            groups[places[running[-1]] if running else "around layers"] += storage.nbytes()
            kept.append(tensor)
        return tensor

    def enter(module: nn.Module, arguments: tuple) -> None:
        running.append(module)
        if module in (student.blocks[1], student.layers[1]):
            inputs[places[module]] = float(arguments[0].nbytes)

    def leave(*_: Any) -> None:
        running.pop()

    handles = [module.register_forward_pre_hook(enter) for module in model.modules()]
    handles += [module.register_forward_hook(leave) for module in model.modules()]
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _places(student: Student) -> dict[nn.Module, str]:
    """Where the computation of each module belongs."""
    places = dict.fromkeys(student.model.modules(), "around layers")
    for part in (student.vision, *student.projectors):
        places |= dict.fromkeys(part.modules(), "around blocks")
    for number, block in enumerate(student.blocks):
        places |= dict.fromkeys(block.modules(), "block" if number == 1 else "other block")
    for number, layer in enumerate(student.layers):
        name = {1: "layer", TWIN_LAYERS - 1: "last layer"}.get(number, "other layer")
        places |= dict.fromkeys(layer.modules(), name)
    return places
