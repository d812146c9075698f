"""Supervised fine-tuning of a student on clip trees."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from autodrive.bounds import PositiveNumber
from autodrive.ranks.group import Group
from autodrive.seeding import generator_for
from autodrive.students.noise import EmbeddingNoise
from autodrive.students.student import Student
from autodrive.students.towers import Tower
from autodrive.training.losses import weighted_cross_entropy
from autodrive.training.method import Method
from autodrive.training.strategies import OneProcess, Sharing
from autodrive.trees.clip_tree import TreeRow
from autodrive.trees.sharing import side_by_side


@dataclass(frozen=True)
class Steps:
    """How optimiser steps are made and shared, beside what `conf/method` says of them.

    Attributes:
        optimizer: Makes the optimiser from groups of parameters; its learning rate is the peak.
        schedule: Factor on the peak learning rate at each optimiser step, from 0.
        tower_lr: Peak learning rates of towers that have one of their own.
        seed: Seed of the noise and of the adapters' dropout.
        sharing: How several processes take steps together.
        group: The processes that do.
    """

    optimizer: Callable[..., Optimizer]
    schedule: Callable[[int], float]
    tower_lr: Mapping[Tower, float] = field(default_factory=dict)
    seed: int = 0
    sharing: Sharing = field(default_factory=lambda: cast(Sharing, OneProcess()))  # whose names are the class's
    group: Group = field(default_factory=Group)


class SupervisedFineTuning(Method):
    """Next-token prediction of answers given a clip.

    Args:
        student: The model; its parameters that require gradients are trained.
        steps: How steps are made and shared.
        max_grad_norm: Gradients of a step are scaled down to this norm.
        gradient_checkpointing: Keep only every layer's input and compute the rest again on the way back.
        neftune_alpha: Magnitude of the noise on embeddings in training, see `EmbeddingNoise`; None for none.
        answers: Index of the right option by validation annotation id, for `val/accuracy`.
    """

    def __init__(
        self,
        student: Student,
        steps: Steps,
        max_grad_norm: PositiveNumber,
        gradient_checkpointing: bool,
        neftune_alpha: PositiveNumber | None = None,
        answers: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(student, steps.group)
        self.automatic_optimization = False  # a step has as many backward passes as packed rows
        if gradient_checkpointing:
            student.checkpoint_activations()
        self.steps, self.sharing = steps, steps.sharing
        self.max_grad_norm, self.neftune_alpha = max_grad_norm, neftune_alpha
        self.strict_loading = False  # checkpoints hold what is trained, see `trained_weights`
        self.answers = answers or {}
        self.trained_groups: list[list[torch.nn.Parameter]] = []
        self.at_end: Callable[[], None] = lambda: None
        self.ended = False
        self._right, self._asked = 0.0, 0

    def configure_model(self) -> None:
        """Give each process its part of the student."""
        self.sharing.cut_up(self)

    def on_fit_start(self) -> None:
        """A student that was read from files comes in evaluation mode, in which nothing is checkpointed or dropped."""
        self.student.train()

    def forward(self, row: TreeRow, noise: EmbeddingNoise | None = None) -> torch.Tensor:
        """A row's share of the loss of its step, in nats."""
        with self.autocast():
            logits = self.student.supervised_logits(row, noise)
        return weighted_cross_entropy(logits, row.target_ids, row.target_weights)

    def training_step(self, rows: Sequence[TreeRow], batch_index: int) -> dict[str, Any]:
        """One optimiser step: the gradients of its packed rows add up, over all processes.

        Returns:
            The step's `loss`, its `gradient_norm` before clipping, the `lr` that it was taken with, and how many
            `annotations`, `tokens` and `rows` it had.
        """
        optimizer, scheduler = cast(Optimizer, self.optimizers()), cast(LambdaLR, self.lr_schedulers())
        optimizer.zero_grad()
        total = torch.zeros((), device=self.device)
        # A step that memory cannot hold at once is several rows. Their weights share one normaliser, so backward passes
        # add up to the gradient of the whole step whatever lies in which row.
        with self._randomness_of_step() as noise:
            for place, row in enumerate(rows):
                total += self.sharing.backward(self, row, noise, last=place == len(rows) - 1)
        lr = optimizer.param_groups[0]["lr"]
        norm = self.sharing.step(self, optimizer, self.max_grad_norm)
        scheduler.step()
        own = [row for row in rows if not row.filler]
        counts = [sum(len(row.spans) for row in own), sum(row.num_tokens for row in own), len(own)]
        if self.group.size > 1:
            loss, *counts = self.group.sums([float(total), *counts])
            total = torch.tensor(loss)
        step = {"annotations": int(counts[0]), "tokens": int(counts[1]), "rows": int(counts[2])}
        self.log("train/loss", total, prog_bar=True, batch_size=1)
        self.log("train/annotations_per_step", float(step["annotations"]), batch_size=1)
        return {"loss": total, "gradient_norm": norm, "lr": lr, **step}

    def on_train_end(self) -> None:
        """What is done while every process still has its part of the weights, after the last checkpoint."""
        self.at_end()
        self.ended = True

    def on_validation_epoch_start(self) -> None:
        """Begin to count."""
        self._right, self._asked = 0.0, 0

    def validation_step(self, rows: Sequence[TreeRow], batch_index: int) -> None:
        """Count the right answers to the multiple-choice question by option scores."""
        lockstep = self.group if self.sharing.shards_weights else None
        for row in side_by_side(rows, lockstep):
            scores = self.student.prefill(row, lockstep).score_options()
            for span, log_probs in zip(row.spans, scores, strict=True):
                if span.annotation_id in self.answers and not row.filler:
                    best = max(range(len(log_probs)), key=log_probs.__getitem__)
                    self._right += best == self.answers[span.annotation_id]
                    self._asked += 1

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy over all processes' clips, on which all agree, since checkpoints are chosen by it."""
        right, asked = self.group.sums([self._right, self._asked])
        if asked:  # clips may come without the question by which checkpoints are chosen
            self.log("val/accuracy", torch.tensor(right / asked, dtype=torch.float32), prog_bar=True)

    def transfer_batch_to_device(
        self, batch: Sequence[TreeRow], device: torch.device, dataloader_idx: int
    ) -> tuple[TreeRow, ...]:
        """Packed rows move as one record each."""
        return tuple(row.to(device) for row in batch)

    def configure_optimizers(self):
        """The optimiser and its schedule; vectors (norms, biases, magnitudes) and embeddings are not decayed."""
        towers = self.student.towers
        groups: dict[tuple[float | None, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in self.student.model.named_parameters():
            if parameter.requires_grad:
                # Decay pulls towards 0. A norm's scale belongs near 1, and rare tokens' embeddings would fade between
                # their uses.
                decayed = parameter.ndim >= 2 and "embed_tokens" not in name
                groups.setdefault((self.steps.tower_lr.get(towers.of(name)), decayed), []).append(parameter)
        chosen: list[dict[str, Any]] = []
        for (lr, decayed), parameters in sorted(groups.items(), key=lambda group: (group[0][0] or 0, not group[0][1])):
            own = ({} if lr is None else {"lr": lr}) | ({} if decayed else {"weight_decay": 0.0})
            chosen.append({"params": parameters, **own})
        self.trained_groups = [group["params"] for group in chosen]
        optimizer = self.steps.optimizer(chosen)
        return {"optimizer": optimizer, "lr_scheduler": LambdaLR(optimizer, self.steps.schedule)}

    def trained_weights(self) -> dict[str, torch.Tensor]:
        """The weights that are trained, each once, by the names that this module's `state_dict` gives them."""
        return {name: tensor for name, tensor in self.named_parameters() if tensor.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only what is trained: the rest comes with the student, and may be a hundred times as much."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in self.trained_weights() if name in state}

    @contextmanager
    def _randomness_of_step(self) -> Iterator[EmbeddingNoise | None]:
        """The noise of a step, and dropout of this step meanwhile: both follow from the seed and the step's number.

        A resumed run therefore draws what the unbroken one would have drawn. Dropout takes no generator of its own, so
        that every process draws another one for its rows.
        """
        seed = generator_for(self.steps.seed, "dropout", self.global_step, self.group.rank).integers(2**63)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(seed))
            alpha = self.neftune_alpha
            yield None if alpha is None else EmbeddingNoise(alpha, self.steps.seed, self.global_step)
