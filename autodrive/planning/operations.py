"""Floating-point operations of training steps: matrix products and attention, counted layer by layer.

A matrix product of n tokens with a weight of m values takes 2nm operations forward, and as many again for each of two
gradients backward: that of its input, if anything before it is trained, and that of its weight, if it is. Attention
takes 4 operations a pair of tokens, layer and unit of width forward and twice that backward (Kaplan et al. 2020,
section 2.1; Hoffmann et al. 2022, appendix F), here of the pairs that are looked at. Where activations are recomputed,
layers run forward a second time. Norms, embeddings, the optimiser and DoRA's norms of weights are left out: a percent.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from autodrive.planning.workload import FrameGroups, Visit
from autodrive.students.anatomy import MATRIX_PRODUCTS, Anatomy
from autodrive.students.student import Student
from autodrive.students.towers import TOWERS, Tower

ENDS_OF_LAYERS = (".down_proj", ".linear_fc2", ".fc2")  # products whose result nobody asks for a second time


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of some work.

    Attributes:
        forward: Those of computing the loss.
        backward: Those of its gradients.
        recomputed: Those of layers that run forward again because their activations were not kept.
    """

    forward: float = 0.0
    backward: float = 0.0
    recomputed: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.forward + self.backward + self.recomputed

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(
            self.forward + other.forward, self.backward + other.backward, self.recomputed + other.recomputed
        )

    def __mul__(self, factor: float) -> "Operations":
        return Operations(self.forward * factor, self.backward * factor, self.recomputed * factor)


@dataclass(frozen=True)
class Product:
    """The matrix products of one kind of token, a token's share.

    Attributes:
        multiplied: Weight values that a token is multiplied with.
        trained: How many of them are trained.
        checkpointed: Whether they are computed again where activations are recomputed: they lie in a layer, and not at
            its end, whose result nobody asks for again.
        downstream: Whether something before them is trained, so that their inputs have gradients.
    """

    multiplied: int
    trained: int
    checkpointed: bool
    downstream: bool

    def of(self, tokens: float, recompute: bool) -> Operations:
        """What they take for so many tokens."""
        again = recompute and self.checkpointed and self.downstream
        forward = 2.0 * tokens * self.multiplied
        backward = forward * self.downstream + 2.0 * tokens * self.trained
        return Operations(forward, backward, forward if again else 0.0)


def visit_operations(student: Student, visit: Visit, recompute: bool) -> Operations:
    """What one visit takes, as a clip tree.

    Args:
        student: The student, whose parameters that require gradients are trained; its weights are not needed.
        visit: The visit.
        recompute: Whether activations are recomputed (`method.gradient_checkpointing`).
    """
    sizes = student.anatomy()
    tokens = {
        "patch": visit.video.patches(sizes),
        "visual": visit.video.tokens * sizes.pictures_per_group,
        "text": visit.tokens,
        "asked": visit.supervised_tokens,
    }
    total = Operations()
    for kind, product in _products(student):
        total += product.of(tokens[kind], recompute)
    last = visit.supervised_pairs if student.asks_last_layer else visit.attended_pairs
    pairs = (sizes.layers - 1) * visit.attended_pairs + last
    total += _attention(pairs * sizes.attention_width, _reaches(student, *TOWERS), recompute)
    pairs = sizes.full_blocks * _full_pairs(visit.video, sizes)
    pairs += (sizes.blocks - sizes.full_blocks) * _window_pairs(visit.video, sizes)
    return total + _attention(pairs * sizes.block_width, _reaches(student, "vision"), recompute)


def without_trees(student: Student, visit: Visit, recompute: bool) -> Operations:
    """What the same visit takes where every annotation is a sequence with the video of its own."""
    return visit_operations(student, replace(visit, annotations=1.0), recompute) * visit.annotations


def _products(student: Student) -> Iterator[tuple[str, Product]]:
    """Every weight that tokens are multiplied with, and the kind of token: patch, visual, text or asked."""
    # In the order in which they are run through: behind a trained tower, and within it, inputs have gradients.
    reached: dict[Tower, bool] = {
        "vision": _reaches(student, "vision"),
        "projector": _reaches(student, "vision", "projector"),
        "language": _reaches(student, *TOWERS),
    }
    checkpointed = {module for part in (*student.blocks, *student.layers) for module in part.modules()}
    last_layer, towers = set(student.layers[-1].modules()), student.towers
    first_product = next(part for part in student.vision.modules() if isinstance(part, MATRIX_PRODUCTS))
    for name, module in student.model.named_modules():
        if not isinstance(module, MATRIX_PRODUCTS):
            continue
        again = module in checkpointed and not name.endswith(ENDS_OF_LAYERS)
        # A quantised layer's weight is packed; its sizes are not.
        values = module.in_features * module.out_features if isinstance(module, nn.Linear) else module.weight.numel()
        trained = values if module.weight.requires_grad else 0
        tower = towers.of(name)
        if tower != "language":
            kind = "visual" if tower == "projector" else "patch"
        else:
            # Keys and values of all tokens are needed in the last layer too.
            seen_by_all = "k_proj" in name or "v_proj" in name
            in_last_layer = student.asks_last_layer and module in last_layer
            asked = module is student.head or (in_last_layer and not seen_by_all)
            kind = "asked" if asked else "text"
        yield kind, Product(values, trained, again, reached[tower] and module is not first_product)


def _attention(pairs_by_width: float, downstream: bool, recompute: bool) -> Operations:
    forward = 4.0 * pairs_by_width
    return Operations(forward, 2 * forward * downstream, forward * (downstream and recompute))


def _full_pairs(video: FrameGroups, sizes: Anatomy) -> float:
    """Pairs of patches where each attends to all of its picture."""
    return video.groups * sizes.pictures_per_group * (video.rows * video.columns * sizes.patches_per_token) ** 2


def _window_pairs(video: FrameGroups, sizes: Anatomy) -> float:
    """Pairs of patches where each attends to its window of tokens, fewer at the picture's end."""

    def lengths(side: int) -> list[int]:
        return [min(sizes.window, side - start) for start in range(0, side, sizes.window)]

    areas = [height * width for height in lengths(video.rows) for width in lengths(video.columns)]
    return video.groups * sizes.pictures_per_group * sum((area * sizes.patches_per_token) ** 2 for area in areas)


def _reaches(student: Student, *towers: Tower) -> bool:
    """Whether something of these towers is trained, so that a backward pass gets to them."""
    return any(parameter.requires_grad for tower in towers for _, parameter in student.towers.parameters(tower))
