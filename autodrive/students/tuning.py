"""What of a student is trained: all weights, or an adapter on a base that stays as it is (`conf/adapter/*.yaml`).

Whatever is trained is float32. AdamW moves a weight by about the learning rate a step; at 1e-5 that is less than half
the distance between two bfloat16 numbers wherever the weight is above 0.005 or so, and such a step would be rounded
away. What is not trained keeps the type of its checkpoint, and a trainer with `precision=bf16-mixed` computes in
bfloat16 with both.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import torch
from annotated_types import Ge, Le, Lt
from torch import nn

from autodrive.bounds import Distinct, PositiveNumber
from autodrive.errors import InputError
from autodrive.students.quantisation import quantise
from autodrive.students.towers import TOWERS, Tower, Towers

AdapterKind = Literal["lora", "dora", "qlora", "qdora"]
Rank = Annotated[int, Ge(1), Le(65_536)]


class Tuning(Protocol):
    """A way to train a student; what `conf/adapter/*.yaml` instantiates.

    Attributes:
        kind: Name of its file.
    """

    @property
    def kind(self) -> str:
        """Name of its file."""
        ...

    def reaches(self, tower: Tower) -> bool:
        """Whether it can train anything of a tower."""
        ...

    def prepare(self, towers: Towers) -> None:
        """Choose a model's trained parameters by `requires_grad`, after putting in place what there is not yet.

        Raises:
            InputError: It does not suit this model.
        """
        ...


@dataclass(frozen=True)
class FullTuning:
    """Every weight is trained; `freeze` leaves towers out."""

    @property
    def kind(self) -> str:
        """Name of its file."""
        return "full"

    def reaches(self, tower: Tower) -> bool:
        """All towers."""
        return True

    def prepare(self, towers: Towers) -> None:
        """See `Tuning`."""
        towers.model.requires_grad_(True)


@dataclass(frozen=True)
class GivenAdapter:
    """The adapter with which the student of `student_from` comes is trained on; its base stays as it is."""

    @property
    def kind(self) -> str:
        """Name of its file."""
        return "given"

    def reaches(self, tower: Tower) -> bool:
        """Known once the adapter is there."""
        return True

    def prepare(self, towers: Towers) -> None:
        """See `Tuning`."""
        from autodrive.students.adapters import adapter_parameters  # imported here: peft takes seconds

        towers.model.requires_grad_(False)
        for parameter in adapter_parameters(towers.model):
            parameter.requires_grad_(True)


@dataclass(frozen=True)
class LowRankAdapter:
    """A trained product of two thin matrices beside chosen linear layers of a base that stays as it is.

    LoRA (Hu et al. 2021): W = W0 + (alpha / rank) B A. DoRA (Liu et al. 2024): each row of that W is scaled to a
    trained magnitude. QLoRA (Dettmers et al. 2023) and QDoRA: the same over a base in 4 bits.

    Attributes:
        kind: `lora` or `dora`; with a `q` in front, all linear layers of the towers that are reached are in 4 bits.
        rank: Width of the thin matrices.
        alpha: Scale of their product, or `2r`, twice the rank.
        dropout: Share of the adapters' inputs that is dropped in training.
        targets: For each tower `all` its linear layers or the last parts of their names, such as [q_proj, v_proj]. The
            language model's head is never among them.
    """

    kind: AdapterKind
    rank: Rank | None
    alpha: PositiveNumber | Literal["2r"]
    dropout: Annotated[float, Ge(0), Lt(1)]
    targets: Mapping[Tower, Literal["all"] | Distinct[str]]

    def reaches(self, tower: Tower) -> bool:
        """Whether it is put on layers of this tower."""
        return bool(self.targets.get(tower))

    @property
    def quantised(self) -> bool:
        """Whether the base is in 4 bits."""
        return self.kind.startswith("q")

    def layers(self, towers: Towers) -> dict[str, nn.Linear]:
        """The linear layers on which adapters are put, by path.

        Raises:
            InputError: A name matches no layer of its tower, no tower is named, or the rank is above a layer's size.
        """
        if self.rank is None:
            raise InputError(f"rank: adapter={self.kind} needs one; give rank=16, say")
        chosen: dict[str, nn.Linear] = {}
        for tower in filter(self.reaches, TOWERS):
            key, layers = f"adapter.targets.{tower}", towers.linear_layers(tower)
            if not layers:
                raise InputError(f"{key}: this student has no linear layers there; leave it empty")
            last_parts = {path.rpartition(".")[2] for path in layers}
            wanted = last_parts if self.targets[tower] == "all" else set(self.targets[tower])
            for name in sorted(wanted - last_parts):
                known = ", ".join(sorted(last_parts))
                raise InputError(f"{key}: no linear layer there is called {name}; choose from {known}")
            chosen |= {path: layer for path, layer in layers.items() if path.rpartition(".")[2] in wanted}
        if not chosen:
            raise InputError(f"adapter.targets: adapter={self.kind} would be put on nothing; give targets.language=all")
        for path, layer in chosen.items():
            if self.rank > (largest := min(layer.in_features, layer.out_features)):
                size = f"{layer.out_features}x{layer.in_features}"
                key = f"adapter.targets.{towers.of(path)}"
                fix = f"give rank={largest} or less, or leave it out of {key}"
                raise InputError(f"rank={self.rank}: more than {path} has ({size}); {fix}")
        return chosen

    def prepare(self, towers: Towers) -> None:
        """See `Tuning`; matrices are drawn from torch's global generator, see `make_trainable`."""
        from autodrive.students.adapters import inject  # imported here: peft takes seconds

        layers = self.layers(towers)
        assert self.rank is not None
        if self.quantised:
            for tower in filter(self.reaches, TOWERS):
                quantise(towers.model, towers.linear_layers(tower))
        towers.model.requires_grad_(False)
        inject(
            towers.model,
            {
                "r": self.rank,
                "lora_alpha": 2 * self.rank if self.alpha == "2r" else self.alpha,
                "lora_dropout": self.dropout,
                "use_dora": self.kind.endswith("dora"),
                "target_modules": _pattern(layers, towers.model),
            },
        )


def make_trainable(towers: Towers, tuning: Tuning, frozen: Collection[Tower], seed: int) -> None:
    """Make a student ready to be trained: `requires_grad` says what is, and all of that is float32.

    Args:
        towers: The student's model; it is changed in place. On `meta` nothing but shapes is made.
        tuning: How it is trained.
        frozen: Towers of which nothing is trained.
        seed: Seed of what is drawn.

    Raises:
        InputError: The tuning does not suit this model, or a tower to be frozen has no parameters.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tuning.prepare(towers)
    for tower in frozen:
        parameters = [parameter for _, parameter in towers.parameters(tower)]
        if not parameters:
            raise InputError(f"freeze.{tower}=true: this student has no such tower; leave it out")
        for parameter in parameters:
            parameter.requires_grad_(False)
    for parameter in towers.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _pattern(layers: Collection[str], model: nn.Module) -> str:
    """An expression that matches these paths of a model's modules and no other: what peft keeps of its targets.

    A list of 200 paths would do as well. peft shortens such lists to the ends of names, in no particular order.
    """
    numbered = sorted({re.sub(r"(?<=\\\.)\d+(?=\\\.)", r"\\d+", re.escape(path)) for path in layers})
    pattern = "|".join(numbered)
    matched = {path for path, _ in model.named_modules() if re.fullmatch(pattern, path)}
    return pattern if matched == set(layers) else "|".join(sorted(map(re.escape, layers)))
