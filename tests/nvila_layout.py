"""The tensors of NVILA's published `-hf` files by name and shape, as the public loaders name them.

Sources: SGLang, `python/sglang/srt/models/nvila.py` and `nvila_lite.py` (prefixes, the projector's numbers and widths),
transformers' SigLIP of the time of these files (the tower's names) and Qwen2 (the language model's). Written
without a look at our model: test files are made from this list.

V and M are widths of the tower and of its MLP, P its patches and K a patch's side; D, Q, G and I are the widths of the
language model, its queries, its keys and its MLP; W is the vocabulary.
"""

from collections.abc import Iterator, Mapping

TOWER = """
embeddings.patch_embedding.weight V 3 K K
embeddings.patch_embedding.bias V
embeddings.position_embedding.weight P V
encoder.layers.*.layer_norm1.weight V
encoder.layers.*.layer_norm1.bias V
encoder.layers.*.layer_norm2.weight V
encoder.layers.*.layer_norm2.bias V
encoder.layers.*.mlp.fc1.weight M V
encoder.layers.*.mlp.fc1.bias M
encoder.layers.*.mlp.fc2.weight V M
encoder.layers.*.mlp.fc2.bias V
encoder.layers.*.self_attn.q_proj.weight V V
encoder.layers.*.self_attn.q_proj.bias V
encoder.layers.*.self_attn.k_proj.weight V V
encoder.layers.*.self_attn.k_proj.bias V
encoder.layers.*.self_attn.v_proj.weight V V
encoder.layers.*.self_attn.v_proj.bias V
encoder.layers.*.self_attn.out_proj.weight V V
encoder.layers.*.self_attn.out_proj.bias V
post_layernorm.weight V
post_layernorm.bias V
"""
HEAD = """
head.probe 1 1 V
head.attention.in_proj_weight 3V V
head.attention.in_proj_bias 3V
head.attention.out_proj.weight V V
head.attention.out_proj.bias V
head.layernorm.weight V
head.layernorm.bias V
head.mlp.fc1.weight M V
head.mlp.fc1.bias M
head.mlp.fc2.weight V M
head.mlp.fc2.bias V
"""
PROJECTORS = {
    "nvila": """
layers.1.weight 12V
layers.1.bias 12V
layers.2.weight D 12V
layers.2.bias D
layers.4.weight D D
layers.4.bias D
""",
    "nvila_lite": """
layers.1.weight 9V
layers.1.bias 9V
layers.2.weight 3V 9V
layers.2.bias 3V
layers.4.weight 3V
layers.4.bias 3V
layers.5.weight D 3V
layers.5.bias D
layers.7.weight D D
layers.7.bias D
""",
}
LANGUAGE = """
model.embed_tokens.weight W D
model.layers.*.input_layernorm.weight D
model.layers.*.self_attn.q_proj.weight Q D
model.layers.*.self_attn.q_proj.bias Q
model.layers.*.self_attn.k_proj.weight G D
model.layers.*.self_attn.k_proj.bias G
model.layers.*.self_attn.v_proj.weight G D
model.layers.*.self_attn.v_proj.bias G
model.layers.*.self_attn.o_proj.weight D Q
model.layers.*.post_attention_layernorm.weight D
model.layers.*.mlp.gate_proj.weight I D
model.layers.*.mlp.up_proj.weight I D
model.layers.*.mlp.down_proj.weight D I
model.norm.weight D
lm_head.weight W D
"""
OLDER, NEWER = "vision_tower.vision_model.", "vision_tower."


def published_tensors(
    model_type: str, sizes: Mapping[str, int], layers: tuple[int, int], tower_prefix: str = OLDER, head: bool = True
) -> dict[str, tuple[int, ...]]:
    """Names and shapes; `layers` are those of the tower and of the language model."""
    parts = [
        (tower_prefix, TOWER + (HEAD if head else ""), layers[0]),
        ("mm_projector.", PROJECTORS[model_type], 0),
        ("llm.", LANGUAGE, layers[1]),
    ]
    return {prefix + name: shape for prefix, listed, depth in parts for name, shape in _expanded(listed, sizes, depth)}


def _expanded(listed: str, sizes: Mapping[str, int], depth: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for line in listed.split("\n"):
        if line:
            name, *axes = line.split()
            shape = tuple(int(axis[:-1] or 1) * sizes[axis[-1]] if axis[-1].isalpha() else int(axis) for axis in axes)
            for number in range(depth) if "*" in name else (0,):
                yield name.replace("*", str(number)), shape
