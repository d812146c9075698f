"""Losses: pure functions of logits and targets."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def weighted_cross_entropy(logits_SV: Tensor, target_ids: Tensor, target_weights: Tensor) -> Tensor:
    """Next-token negative log-likelihood, weighted per supervised token.

    Args:
        logits_SV: (S, vocabulary) logits at the supervised positions only.
        target_ids: (S,) next tokens.
        target_weights: (S,) weights; they sum to 1 over the batch, so the result is a mean.

    Returns:
        Scalar loss in nats.
    """
    token_losses = cross_entropy(logits_SV.float(), target_ids, reduction="none")
    return torch.dot(token_losses, target_weights.to(token_losses.dtype))
