"""The towers of a vision-language model, what is trained of each, and how many parameters that is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from torch import Tensor, nn

Tower = Literal["vision", "projector", "language"]
TOWERS: tuple[Tower, ...] = ("vision", "projector", "language")


class TowerCount(NamedTuple):
    """Parameters of a tower; those of a quantised layer count as before, not as the bytes that they are packed into."""

    trained: int
    frozen: int


@dataclass(frozen=True)
class Towers:
    """A model, seen as three towers. Its weights may be on `meta`: shapes and names are enough to count and to check.

    Attributes:
        model: The whole model, in the layout of its family's checkpoints.
        vision: All that lies between pixels and the language model; the projector may be a part of it.
        projectors: What turns visual features into embeddings of the language model; several modules where features of
            several depths are handed over.
        head: From hidden states to logits. It belongs to the language tower, and no adapter is put on it.
    """

    model: nn.Module
    vision: nn.Module
    projectors: Sequence[nn.Module]
    head: nn.Module

    def of(self, path: str) -> Tower:
        """The tower to which the module or parameter with this name belongs."""
        for tower, paths in self._paths.items():  # in this order: one may lie within the other
            if f"{path}.".startswith(paths):
                return tower
        return "language"

    def parameters(self, tower: Tower) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of a tower; one that is used in two places comes once."""
        return ((name, value) for name, value in self.model.named_parameters() if self.of(name) == tower)

    def linear_layers(self, tower: Tower) -> dict[str, nn.Linear]:
        """The linear layers of a tower by their paths, without the head."""
        return {
            path: module
            for path, module in self.model.named_modules()
            if isinstance(module, nn.Linear) and module is not self.head and self.of(path) == tower
        }

    def counts(self) -> Mapping[Tower, TowerCount]:
        """How many parameters of each tower are trained and how many are not, such as those that no pass reads."""
        found = dict.fromkeys(TOWERS, TowerCount(0, 0))
        for name, weight in unread_weights(self.model).items():
            trained, frozen = found[self.of(name)]
            found[self.of(name)] = TowerCount(trained, frozen + weight.numel())
        for name, parameter in self.model.named_parameters():
            size, (trained, frozen) = num_parameters(parameter), found[self.of(name)]
            one = TowerCount(trained + size, frozen) if parameter.requires_grad else TowerCount(trained, frozen + size)
            found[self.of(name)] = one
        return found

    @cached_property
    def _paths(self) -> Mapping[Tower, tuple[str, ...]]:
        names = {id(module): f"{path}." for path, module in self.model.named_modules()}
        return {"projector": tuple(names[id(part)] for part in self.projectors), "vision": (names[id(self.vision)],)}


def unread_weights(model: nn.Module) -> Mapping[str, Tensor]:
    """Weights of a checkpoint that are kept for its files alone, as buffers, by name."""
    saved = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in saved}


def num_parameters(parameter: nn.Parameter) -> int:
    """Numbers that a parameter stands for: of a quantised one more than it has elements."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()
