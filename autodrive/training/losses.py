"""Losses: pure functions of logits and targets."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def weighted_cross_entropy(logits_SV: Tensor, target_ids: Tensor, target_weights: Tensor) -> Tensor:
    """Next-token negative log-likelihood, weighted per supervised token.

    Args:
        logits_SV: (S, vocabulary) logits at the supervised positions only.
        target_ids: (S,) ids of the tokens that should follow.
        target_weights: (S,) what each token's loss is multiplied by, normaliser included: see `pack_trees`.

    Returns:
        The weighted sum in nats, a scalar; the sum over the rows of a step is the step's loss.
    """
    token_losses = cross_entropy(logits_SV.float(), target_ids, reduction="none")
    return torch.dot(token_losses, target_weights.to(token_losses.dtype))
