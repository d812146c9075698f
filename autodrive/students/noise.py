"""Noise on embeddings in training (NEFTune, Jain et al. 2024, algorithm 1)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autodrive.trees.clip_tree import TreeSpan


@dataclass(frozen=True)
class EmbeddingNoise:
    """Uniform noise that is weaker the longer a sample is: its expected length does not depend on that of the sample.

    Attributes:
        alpha: Magnitude; 5 is the paper's smallest.
        generator: Source of the noise, on the device of the embeddings.
    """

    alpha: float
    generator: torch.Generator

    def added_to(self, embeddings_NC: Tensor, trees: Sequence[TreeSpan]) -> Tensor:
        """Embeddings of a packed row with noise, visual tokens included.

        A tree is a sample: its tokens get alpha / sqrt(L C) times U(-1, 1), where L is the tree's own length. That of
        the row would depend on what else was packed into it.

        Args:
            embeddings_NC: (N, width) embeddings of the row's tokens, visual ones in their places.
            trees: Where the trees lie in the row.
        """
        noise_NC = torch.empty_like(embeddings_NC, dtype=torch.float32).uniform_(-1, 1, generator=self.generator)
        for tree in trees:
            noise_NC[tree.start : tree.end] *= self.alpha / math.sqrt((tree.end - tree.start) * noise_NC.shape[1])
        return embeddings_NC + noise_NC.to(embeddings_NC.dtype)
