"""Attention over packed rows of clip trees, exact and without a mask of row length squared.

A prefix attends to itself, causally: a plain causal call. The branches of a tree attend to the prefix and each to
itself: one call whose mask has only the branches' rows. Trees whose prefixes are equally long share their calls.
Registered with transformers as `clip_trees`; everything but a packed row (the steps of generation, which bring their
own small mask) is passed on to its sdpa.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from autodrive.trees.layout import TreeLayout

CLIP_TREES = "clip_trees"


def clip_tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    tree_layout: TreeLayout | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attend within the trees of a packed row; the signature is transformers'.

    Args:
        module: The attention module that calls.
        query: (1, heads, N, head size).
        key: (1, key-value heads, N, head size).
        value: (1, key-value heads, N, head size).
        attention_mask: Mask of a call that is no packed row.
        tree_layout: Layout of the packed row; None passes the call on to sdpa.
        settings: What else transformers passes: `scaling`, the factor of the scores, `dropout`, the dropout probability
            of the attention weights, and more that sdpa alone knows.

    Returns:
        (1, N, heads, head size), and no weights.
    """
    if tree_layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    how: dict[str, Any] = {"dropout_p": settings.get("dropout", 0.0), "scale": settings.get("scaling")}
    groups = query.shape[1] // key.shape[1]
    tokens = tree_layout.tokens
    outputs = []
    # Calls for trees of one length rather than a masked call for the row: the kernels skip nothing under a mask, so
    # that trees of one row would pay for each other, and the square mask of 8,000 tokens would be 128 MB in bfloat16.
    for batch, *of_trees in zip(tree_layout.batches, *map(tokens.spread, (query, key, value)), strict=True):
        q, k, v = of_trees
        # The prefix is most of a tree's tokens, and needs no mask: causal is all there is to it. CUDA's kernels take
        # grouped heads or a mask, not both, so only this call keeps them grouped.
        before = (tensor[:, :, : batch.prefix] for tensor in of_trees)
        found = [F.scaled_dot_product_attention(*before, is_causal=True, enable_gqa=groups > 1, **how)]
        if q.shape[2] > batch.prefix:
            # The branches are few tokens that look back over the whole tree: a wide, low mask instead of a square one.
            k, v, bias = repeat_kv(k, groups), repeat_kv(v, groups), batch.bias(batch.branches_TBK, q.dtype)
            found.append(F.scaled_dot_product_attention(q[:, :, batch.prefix :], k, v, attn_mask=bias, **how))
        outputs.append(torch.cat(found, dim=2))
    return tokens.collect(outputs), None


def asked_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scaling: float, dropout: float = 0.0
) -> Tensor:
    """Attention of those tokens alone whose next one is wanted.

    Args:
        query: (1, heads, L, head size), of the places that the layout was asked for.
        key: (1, key-value heads, N, head size), of the whole row.
        value: (1, key-value heads, N, head size).
        layout: Layout of the packed row.
        scaling: Factor of the scores.
        dropout: Dropout probability of the attention weights.

    Returns:
        (1, L, heads, head size).
    """
    groups = query.shape[1] // key.shape[1]
    states = layout.asked.spread(query), layout.tokens.spread(key), layout.tokens.spread(value)
    outputs = []
    for batch, q, k, v in zip(layout.batches, *states, strict=True):
        k, v, bias = repeat_kv(k, groups), repeat_kv(v, groups), batch.bias(batch.asked_TSK, q.dtype)
        outputs.append(F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scaling))
    return layout.asked.collect(outputs)


def use_tree_attention(text_model: PreTrainedModel) -> None:
    """Make a language model attend within clip trees.

    Raises:
        ValueError: One of its layers would not: branches would see each other without a sign of it.
    """
    AttentionInterface.register(CLIP_TREES, clip_tree_attention)
    text_model.set_attn_implementation(CLIP_TREES)
    check_tree_attention(text_model)


def check_tree_attention(text_model: PreTrainedModel) -> None:
    """Raise ValueError unless every layer of a language model attends within clip trees.

    transformers answers an implementation that it cannot set with a warning, and passes a tree's layout to layers that
    ignore it.
    """
    name = type(text_model).__name__
    other = {kind for kind in getattr(text_model.config, "layer_types", None) or () if kind != "full_attention"}
    if other:  # windows, and recurrent layers, reach from one branch into the next
        raise ValueError(f"{name}: layers of {', '.join(sorted(other))} cannot be kept within clip trees")
    attentions = [module for module in text_model.modules() if type(module).__name__.endswith("Attention")]
    chosen = {getattr(getattr(module, "config", None), "_attn_implementation", None) for module in attentions}
    if chosen != {CLIP_TREES}:
        raise ValueError(f"{name}: its attention is not that of clip trees, branches would see each other")
