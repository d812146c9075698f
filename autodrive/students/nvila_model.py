"""NVILA put together from stock parts: a SigLIP tower, a small projector, a Qwen2; no remote code.

Facts of its layout and arithmetic: the public loaders of NVILA and NVILA-Lite in SGLang (`srt/models/nvila.py`,
`nvila_lite.py`) and VILA's `base_projector.py`.

Shape letters: T frames, P patches of a frame, L visual tokens of a frame, D values in a patch, C channels, N tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

from autodrive.students.pixel_embedding import embed_pixels

ProjectorKind = Literal["space_to_depth", "lite"]
SIDES: dict[ProjectorKind, int] = {"space_to_depth": 2, "lite": 3}  # patches along the side of a visual token
SCALES = 3  # of S2; a video frame has no tiles, so its features stand for all of them
GREY = (0.5, 0.5, 0.5)  # mean and deviation: pixels lie in -1 … 1


class Downsample(nn.Module):
    """Puts the patches of a square of `side` x `side` behind one another; a frame's end is padded with zeros."""

    def __init__(self, side: int) -> None:
        """Choose the side of the squares."""
        super().__init__()
        self.side = side

    def forward(self, features_TPC: Tensor) -> Tensor:
        """Turn (T, P, C) into (T, L, side x side x C), in the order row, column, channel within a square."""
        side = round(features_TPC.shape[1] ** 0.5)
        missing = -side % self.side
        grid = F.pad(features_TPC.unflatten(1, (side, side)), (0, 0, 0, missing, 0, missing))
        squares = grid.unflatten(2, (-1, self.side)).unflatten(1, (-1, self.side)).transpose(2, 3)
        return squares.flatten(3).flatten(1, 2)


class Projector(nn.Module):
    """From a frame's patches to embeddings; the numbers of its layers are those of published files."""

    def __init__(self, kind: ProjectorKind, vision_width: int, text_width: int) -> None:
        """Make the layers of a kind."""
        super().__init__()
        self.kind: ProjectorKind = kind
        seen = SIDES[kind] ** 2 * vision_width * (SCALES if kind == "space_to_depth" else 1)
        inner = 3 * vision_width if kind == "lite" else text_width
        layers: list[nn.Module] = [Downsample(SIDES[kind]), nn.LayerNorm(seen), nn.Linear(seen, inner), nn.GELU()]
        if kind == "lite":
            layers += [nn.LayerNorm(inner), nn.Linear(inner, text_width), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(text_width, text_width))

    def forward(self, features_TPC: Tensor) -> Tensor:
        """Turn (T, P, C) into (T, L, width of the language model)."""
        repeated = features_TPC.repeat(1, 1, SCALES) if self.kind == "space_to_depth" else features_TPC
        return self.layers(repeated)


@dataclass(frozen=True)
class NvilaSizes:
    """What an NVILA is put together from.

    Attributes:
        vision: Configuration of the tower.
        text: Configuration of the language model.
        projector: Kind of the projector.
        media_id: Id of the placeholder of a visual token.
    """

    vision: SiglipVisionConfig
    text: Qwen2Config
    projector: ProjectorKind
    media_id: int

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of a frame, without the newline behind it."""
        return tokens_of_side(cast(int, self.vision.image_size) // cast(int, self.vision.patch_size), self.projector)


def tokens_of_side(side: int, kind: ProjectorKind) -> int:
    """Visual tokens of a frame of `side` x `side` patches."""
    return math.ceil(side / SIDES[kind]) ** 2


class PatchTower(SiglipVisionModel):
    """A SigLIP that takes patches as uint8 and gives the features of its last layer but one.

    What lies behind those is kept for files alone: as buffers, so that nothing waits for its gradient and no adapter is
    put on it.
    """

    def __init__(self, config: SiglipVisionConfig) -> None:
        """Make the stock tower, and take apart what is not read."""
        super().__init__(config)
        parts: Any = self
        parts.post_layernorm = _unread(parts.post_layernorm)
        parts.encoder.layers[-1] = _unread(parts.encoder.layers[-1])

    def forward(self, patches_PD: Tensor) -> Tensor:  # type: ignore[override]
        """Features (T, P, C) of frames whose patches follow one another."""
        embeddings: Any = self.embeddings
        embedded = embed_pixels(patches_PD, embeddings.patch_embedding, GREY, GREY)
        patches = embedded.unflatten(0, (-1, embeddings.num_patches))
        states_TPC = patches + embeddings.position_embedding.weight.to(patches.dtype)
        for layer in cast(Any, self.encoder).layers[:-1]:
            states_TPC = layer(states_TPC, None)
        return states_TPC


class NvilaModel(nn.Module):
    """The parts under the names of published files."""

    def __init__(self, sizes: NvilaSizes) -> None:
        """Put the parts together, with random weights."""
        super().__init__()
        self.sizes = sizes
        self.vision_tower = PatchTower(sizes.vision)
        self.mm_projector = Projector(sizes.projector, sizes.vision.hidden_size, sizes.text.hidden_size)
        self.llm = Qwen2ForCausalLM(sizes.text)

    def embed(self, input_ids: Tensor, patches_PD: Tensor, frames_B: Tensor) -> Tensor:
        """Embeddings (N, C) of a row's tokens, visual ones in their places.

        Args:
            input_ids: (N,) token ids.
            patches_PD: Patches of all frames, uint8.
            frames_B: How many frames that follow one another each block of visual tokens is the mean of.

        Raises:
            ValueError: There are not as many placeholders as visual tokens.
        """
        embeddings_NC = self.llm.get_input_embeddings()(input_ids)
        if not len(patches_PD):
            return embeddings_NC
        features_TLC = self.mm_projector(self.vision_tower(patches_PD))
        places = input_ids == self.sizes.media_id
        features = averaged(features_TLC, frames_B).flatten(0, 1).to(embeddings_NC.dtype)
        if int(places.sum()) != len(features):
            raise ValueError(f"{int(places.sum())} placeholders and {len(features)} visual tokens do not match")
        return embeddings_NC.masked_scatter(places[:, None], features)


def averaged(features_TLC: Tensor, frames_B: Tensor) -> Tensor:
    """Means (B, L, C) of the features of `frames_B` frames each, which follow one another."""
    if len(frames_B) == len(features_TLC):
        return features_TLC
    means_BD = torch.segment_reduce(features_TLC.float().flatten(1), "mean", lengths=frames_B, axis=0)
    return means_BD.unflatten(1, features_TLC.shape[1:]).to(features_TLC.dtype)


class StockNvila(nn.Module):
    """The same parts as they come, for comparison: whole frames go through the stock tower, all of it."""

    def __init__(self, sizes: NvilaSizes, pooled_frames: int) -> None:
        """Put the parts together; features of `pooled_frames` frames are averaged."""
        super().__init__()
        self.sizes, self.pooled_frames = sizes, pooled_frames
        self.vision_tower = SiglipVisionModel(sizes.vision)
        self.mm_projector = Projector(sizes.projector, sizes.vision.hidden_size, sizes.text.hidden_size)
        self.llm = Qwen2ForCausalLM(sizes.text)

    def forward(self, input_ids: Tensor, pixel_values: Tensor, **further: Any) -> Any:
        """Logits of plain sequences with as many frames each; positions are counted by the language model itself."""
        return self.llm(inputs_embeds=self._embedded(input_ids, pixel_values), **further)

    def generate(self, input_ids: Tensor, pixel_values: Tensor, **how: Any) -> Tensor:
        """Plain sequences and what transformers generates behind them."""
        replies: Tensor = cast(Any, self.llm).generate(inputs_embeds=self._embedded(input_ids, pixel_values), **how)
        return torch.cat([input_ids, replies], dim=1)

    def _embedded(self, input_ids: Tensor, pixel_values: Tensor) -> Tensor:
        embeddings = self.llm.get_input_embeddings()(input_ids)
        if len(pixel_values):
            seen = self.vision_tower(pixel_values, output_hidden_states=True).hidden_states[-2]
            features_STLC = self.mm_projector(seen).unflatten(0, (len(input_ids), -1))
            blocks = [block.mean(1) for block in features_STLC.split(self.pooled_frames, dim=1)]
            features = torch.stack(blocks, dim=1).flatten(1, 2).to(embeddings.dtype)
            places = input_ids == self.sizes.media_id
            places &= places.cumsum(-1) <= features.shape[1]  # a placeholder in a reply is a token like any other
            embeddings = embeddings.masked_scatter(places[..., None], features)
        return embeddings


def _unread(module: nn.Module) -> nn.Module:
    """A module's weights as buffers under the same names, and nothing that computes."""
    kept = nn.Module()
    for name, parameter in module.named_parameters(recurse=False):
        kept.register_buffer(name, parameter.detach())
    for name, child in module.named_children():
        if any(True for _ in child.parameters()):
            kept.add_module(name, _unread(child))
    return kept


def frames_of(patches_PD: Tensor, side: int, patch_size: int) -> Tensor:
    """Whole frames (T, 3, height, width) of `side` x `side` patches each."""
    cells = patches_PD.reshape(-1, side, side, 3, patch_size, patch_size)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, side * patch_size, side * patch_size)


def initialise(model: nn.Module, embeddings: Sequence[Tensor], generator: torch.Generator) -> None:
    """Draw every weight in place: matrices from N(0, 1 / fan-in), embeddings from N(0, 0.5^2), norms 1, biases 0."""
    chosen = {id(weight) for weight in embeddings}
    with torch.no_grad():
        for name, weight in (*model.named_parameters(), *model.named_buffers()):
            if not weight.is_floating_point() or "inv_freq" in name:
                continue
            if id(weight) in chosen:
                nn.init.normal_(weight, std=0.5, generator=generator)
            elif weight.ndim == 1:
                nn.init.constant_(weight, 0.0 if name.endswith("bias") else 1.0)
            else:
                nn.init.normal_(weight, std=weight[0].numel() ** -0.5, generator=generator)
