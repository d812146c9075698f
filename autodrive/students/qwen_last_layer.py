"""The last layer of Qwen2.5's language model, computed only where the next token is wanted.

What it says of other tokens goes nowhere: nobody reads them behind it. Their keys and values are computed as ever.
Of a laptop's student, which has two layers, that saves a sixth of a training step; of a large one a few percent.
"""

from typing import Any, cast

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLDecoderLayer, rotate_half

from autodrive.students.tree_attention import asked_attention
from autodrive.trees.layout import TreeLayout


class LastLayer(Qwen2_5_VLDecoderLayer):
    """The stock layer, but for packed rows of which some places are asked: there it returns those alone."""

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        *,
        position_embeddings: tuple[Tensor, Tensor],
        tree_layout: TreeLayout | None = None,
        places: Tensor | None = None,
        cache: DynamicCache | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the layer.

        Args:
            hidden_states: (1, N, width) of a packed row, or what the stock layer takes.
            position_embeddings: Cosines and sines, each (1, N, head size).
            tree_layout: Layout of the packed row, made for `places`; None for calls that are no packed row.
            places: (L,) places whose next token is wanted.
            cache: Takes the row's keys and values, if given.
            kwargs: Further arguments of the stock layer.

        Returns:
            (1, L, width) at the places that are asked.
        """
        if tree_layout is None or places is None:
            how = {"position_embeddings": position_embeddings, "tree_layout": tree_layout, "cache": cache}
            return super().forward(hidden_states, **how, **kwargs)
        attention = self.self_attn
        states = self.input_layernorm(hidden_states)
        query, key, value = (
            project(inputs).unflatten(2, (-1, attention.head_dim)).transpose(1, 2)
            for project, inputs in (
                (attention.q_proj, states[:, places]),
                (attention.k_proj, states),
                (attention.v_proj, states),
            )
        )
        cos, sin = position_embeddings
        query, key = _rotated(query, cos[:, places], sin[:, places]), _rotated(key, cos, sin)
        if cache is not None:
            key, value = cache.update(key, value, cast(int, attention.layer_idx))
        dropout = cast(float, attention.attention_dropout) if self.training else 0.0
        attended = asked_attention(query, key, value, tree_layout, attention.scaling, dropout)
        asked = hidden_states[:, places] + attention.o_proj(attended.flatten(2))
        return asked + self.mlp(self.post_attention_layernorm(asked))


def _rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of (1, heads, tokens, head size), as transformers' `apply_rotary_pos_emb` computes it."""
    return states * cos.unsqueeze(1) + rotate_half(states) * sin.unsqueeze(1)


def ask_last_layer(text_model: PreTrainedModel) -> None:
    """Let a language model's last layer skip what nobody asks for; the model is changed in place.

    The layer keeps its object, parameters and their names, and takes another class, as `fully_shard` of torch does.
    """
    text_model.layers[-1].__class__ = LastLayer  # type: ignore[index, union-attr]
