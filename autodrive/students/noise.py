"""Noise on embeddings in training (NEFTune, Jain et al. 2024, algorithm 1)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autodrive.seeding import generator_for
from autodrive.trees.clip_tree import TreeSpan


@dataclass(frozen=True)
class EmbeddingNoise:
    """Uniform noise that is weaker the longer a sample is: its expected length does not depend on that of the sample.

    What a visit's tree gets follows from seed, step and its place in the step: it is the same in whatever row, on
    whichever process.

    Attributes:
        alpha: Magnitude; 5 is the paper's smallest.
        seed: Seed of the training.
        step: Number of the step.
    """

    alpha: float
    seed: int
    step: int

    def added_to(self, embeddings_NC: Tensor, trees: Sequence[TreeSpan]) -> Tensor:
        """Embeddings of a packed row with noise, visual tokens included.

        A tree is a sample: its tokens get alpha / sqrt(L C) times U(-1, 1), where L is the tree's own length. That of
        the row would depend on what else was packed into it.

        Args:
            embeddings_NC: (N, width) embeddings of the row's tokens, visual ones in their places.
            trees: Where the trees lie in the row.
        """
        noise_NC = torch.empty_like(embeddings_NC, dtype=torch.float32)
        for tree in trees:
            seed = int(generator_for(self.seed, "noise", self.step, tree.visit).integers(2**63))
            generator = torch.Generator(noise_NC.device).manual_seed(seed)
            own_LC = noise_NC[tree.start : tree.end].uniform_(-1, 1, generator=generator)
            own_LC *= self.alpha / math.sqrt(own_LC.numel())
        return embeddings_NC + noise_NC.to(embeddings_NC.dtype)
