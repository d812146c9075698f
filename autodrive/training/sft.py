"""Supervised fine-tuning of a student on clip trees."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import lightning as L
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from autodrive.bounds import PositiveNumber
from autodrive.students.student import Student
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
        answers: Index of the right option by validation annotation id, for `val/accuracy`.
    """

    def __init__(
        self,
        student: Student,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[[int], float],
        max_grad_norm: PositiveNumber,
        gradient_checkpointing: bool,
        answers: dict[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # a step has as many backward passes as packed rows
        self.student = student
        if gradient_checkpointing:
            student.checkpoint_activations()
        self.make_optimizer, self.schedule = optimizer, schedule
        self.max_grad_norm = max_grad_norm
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
        for row in rows:
            loss = weighted_cross_entropy(self.student.supervised_logits(row), row.target_ids, row.target_weights)
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
        """The optimiser and its schedule; vectors (norms, biases) and embeddings are not decayed."""
        trained = [(name, p) for name, p in self.student.named_parameters() if p.requires_grad]
        # Decay pulls towards 0. A norm's scale belongs near 1, and rare tokens' embeddings would fade between their
        # uses.
        decayed = [p for name, p in trained if p.ndim >= 2 and "embed_tokens" not in name]
        rest = [p for name, p in trained if p.ndim < 2 or "embed_tokens" in name]
        optimizer = self.make_optimizer([{"params": decayed}, {"params": rest, "weight_decay": 0.0}])
        return {"optimizer": optimizer, "lr_scheduler": LambdaLR(optimizer, self.schedule)}
