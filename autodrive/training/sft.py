"""Supervised fine-tuning of a student on clip trees."""

from functools import partial

import lightning as L
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from autodrive.mixture.clip_tree import TreeBatch
from autodrive.students.qwen2_5_vl import QwenStudent
from autodrive.training.losses import weighted_cross_entropy
from autodrive.training.schedules import warmup_cosine


class SupervisedFineTuning(L.LightningModule):
    """Next-token prediction of answers given a clip.

    Args:
        student: the model; its parameters that require gradients are trained.
        lr: peak learning rate.
        num_steps: optimiser steps of the whole training.
        weight_decay: AdamW weight decay, on matrices only.
        betas: AdamW moment decays.
        warmup_fraction: share of the steps with linear warm-up.
        final_lr_fraction: learning rate of the last step as a share of the peak.
        answers: canonical answer by validation annotation id, for `val/accuracy`.
    """

    def __init__(
        self,
        student: QwenStudent,
        lr: float,
        num_steps: int,
        weight_decay: float,
        betas: tuple[float, float],
        warmup_fraction: float,
        final_lr_fraction: float,
        answers: dict[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.lr, self.num_steps, self.weight_decay, self.betas = lr, num_steps, weight_decay, (betas[0], betas[1])
        self.factor = partial(
            warmup_cosine, num_steps=num_steps, warmup_fraction=warmup_fraction, final_fraction=final_lr_fraction
        )
        self.answers = answers or {}

    def training_step(self, batch: TreeBatch, batch_index: int) -> Tensor:
        """One optimiser step's loss."""
        logits_SV = self.student.supervised_logits(batch)
        loss = weighted_cross_entropy(logits_SV, batch.target_ids, batch.target_weights)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.clip_ids))
        self.log("train/annotations_per_step", float(len(batch.spans)), batch_size=len(batch.clip_ids))
        return loss

    def validation_step(self, batch: TreeBatch, batch_index: int) -> None:
        """Accuracy of the multiple-choice question by option scores: one forward pass per batch."""
        scores = self.student.score_options(batch)
        correct = [
            float(max(range(len(log_probs)), key=log_probs.__getitem__) == self.answers[span.annotation_id])
            for span, log_probs in zip(batch.spans, scores, strict=True)
            if span.annotation_id in self.answers
        ]
        value = torch.tensor(correct).mean()
        self.log("val/accuracy", value, prog_bar=True, batch_size=len(correct), on_epoch=True, on_step=False)

    def transfer_batch_to_device(self, batch: TreeBatch, device: torch.device, dataloader_idx: int) -> TreeBatch:
        """Clip trees move as one record."""
        return batch.to(device)

    def configure_optimizers(self):
        """AdamW; vectors (norms, biases) and embeddings are not decayed."""
        trained = [(name, p) for name, p in self.student.named_parameters() if p.requires_grad]
        decayed = [p for name, p in trained if p.ndim >= 2 and "embed_tokens" not in name]
        rest = [p for name, p in trained if p.ndim < 2 or "embed_tokens" in name]
        groups = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=self.betas)
        scheduler = {"scheduler": LambdaLR(optimizer, self.factor), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
