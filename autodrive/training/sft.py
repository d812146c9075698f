"""Supervised fine-tuning of a student on clip trees."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, cast

import lightning as L
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from autodrive.bounds import PositiveNumber, Seed
from autodrive.seeding import generator_for
from autodrive.students.noise import EmbeddingNoise
from autodrive.students.student import Student
from autodrive.students.towers import Tower
from autodrive.training.losses import weighted_cross_entropy
from autodrive.trees.clip_tree import TreeRow


class SupervisedFineTuning(L.LightningModule):
    """Next-token prediction of answers given a clip.

    Args:
        student: The model; its parameters that require gradients are trained.
        optimizer: Makes the optimiser from groups of parameters; its learning rate is the peak.
        schedule: Factor on the peak learning rate at each optimiser step, from 0.
        max_grad_norm: Gradients of a step are scaled down to this norm.
        gradient_checkpointing: Keep only every layer's input and compute the rest again on the way back.
        neftune_alpha: Magnitude of the noise on embeddings in training, see `EmbeddingNoise`; None for none.
        tower_lr: Peak learning rates of towers that have one of their own.
        seed: Seed of the noise and of the adapters' dropout.
        answers: Index of the right option by validation annotation id, for `val/accuracy`.
    """

    def __init__(
        self,
        student: Student,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[[int], float],
        max_grad_norm: PositiveNumber,
        gradient_checkpointing: bool,
        neftune_alpha: PositiveNumber | None = None,
        tower_lr: Mapping[Tower, float] = MappingProxyType({}),
        seed: Seed = 0,
        answers: dict[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # a step has as many backward passes as packed rows
        self.student = student
        if gradient_checkpointing:
            student.checkpoint_activations()
        self.make_optimizer, self.schedule = optimizer, schedule
        self.max_grad_norm = max_grad_norm
        self.neftune_alpha, self.tower_lr, self.seed = neftune_alpha, tower_lr, seed
        self.strict_loading = False  # checkpoints hold what is trained, see `trained_weights`
        self.answers = answers or {}

    def on_fit_start(self) -> None:
        """A student that was read from files comes in evaluation mode, in which nothing is checkpointed or dropped."""
        self.student.train()

    def training_step(self, rows: Sequence[TreeRow], batch_index: int) -> dict[str, Any]:
        """One optimiser step: the gradients of its packed rows add up.

        Returns:
            The step's `loss`, its `gradient_norm` before clipping, and the `lr` that it was taken with.
        """
        optimizer, scheduler = cast(Optimizer, self.optimizers()), cast(LambdaLR, self.lr_schedulers())
        optimizer.zero_grad()
        total = torch.zeros((), device=self.device)
        # A step that memory cannot hold at once is several rows. Their weights share one normaliser, so backward passes
        # add up to the gradient of the whole step whatever lies in which row.
        with self._randomness_of_step() as noise:
            for row in rows:
                logits = self.student.supervised_logits(row, noise)
                loss = weighted_cross_entropy(logits, row.target_ids, row.target_weights)
                self.manual_backward(loss)
                total += loss.detach()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        lr = optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()
        num_annotations = sum(len(row.spans) for row in rows)
        self.log("train/loss", total, prog_bar=True, batch_size=1)
        self.log("train/annotations_per_step", float(num_annotations), batch_size=1)
        return {"loss": total, "gradient_norm": norm, "lr": lr}

    def validation_step(self, rows: Sequence[TreeRow], batch_index: int) -> None:
        """Accuracy of the multiple-choice question by option scores."""
        correct = [
            float(max(range(len(log_probs)), key=log_probs.__getitem__) == self.answers[span.annotation_id])
            for row in rows
            for span, log_probs in zip(row.spans, self.student.prefill(row).score_options(), strict=True)
            if span.annotation_id in self.answers
        ]
        if correct:  # clips may come without the question by which checkpoints are chosen
            value = torch.tensor(correct).mean()
            self.log("val/accuracy", value, prog_bar=True, batch_size=len(correct), on_epoch=True, on_step=False)

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
                groups.setdefault((self.tower_lr.get(towers.of(name)), decayed), []).append(parameter)
        chosen: list[dict[str, Any]] = []
        for (lr, decayed), parameters in sorted(groups.items(), key=lambda group: (group[0][0] or 0, not group[0][1])):
            own = ({} if lr is None else {"lr": lr}) | ({} if decayed else {"weight_decay": 0.0})
            chosen.append({"params": parameters, **own})
        optimizer = self.make_optimizer(chosen)
        return {"optimizer": optimizer, "lr_scheduler": LambdaLR(optimizer, self.schedule)}

    def trained_weights(self) -> dict[str, torch.Tensor]:
        """The weights that are trained, by the names that this module's `state_dict` gives them."""
        return {name: tensor for name, tensor in self.state_dict(keep_vars=True).items() if tensor.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only what is trained: the rest comes with the student, and may be a hundred times as much."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in self.trained_weights()}

    @contextmanager
    def _randomness_of_step(self) -> Iterator[EmbeddingNoise | None]:
        """The noise of a step, and dropout of this step meanwhile: both follow from the seed and the step's number.

        A resumed run therefore draws what the unbroken one would have drawn. Dropout takes no generator of its own.
        """
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(_seed_of(self.seed, "dropout", self.global_step))
            if self.neftune_alpha is None:
                yield None
            else:
                generator = torch.Generator(self.device).manual_seed(_seed_of(self.seed, "noise", self.global_step))
                yield EmbeddingNoise(self.neftune_alpha, generator)


def _seed_of(seed: int, what: str, step: int) -> int:
    return int(generator_for(seed, what, step).integers(2**63))
