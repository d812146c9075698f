"""Random generators that follow from a seed and from what they are for."""

import hashlib

import numpy as np


def generator_for(seed: int, *keys: object) -> np.random.Generator:
    """A random generator that depends on nothing but the seed and the keys."""
    digest = hashlib.sha256(repr((seed, *keys)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
