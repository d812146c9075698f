"""What a configuration computes, apart from where, how fast and with which copies of the data it does so."""

import hashlib
import json
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Where, how fast and by what way a run is made rather than what it computes: they may differ when it is continued. The
# student that a run starts from is known by its weights, wherever its folder lies.
MACHINE_KEYS = frozenset({"resume", "student_from", "num_workers", "paths", "logger", "strategy", "dry_run"})
# Values that say no more than how many processes share the steps, which are the same ones however many do; but for the
# dropout of adapters (docs/clusters.md).
NUMBERS_OF_PROCESSES = frozenset({"trainer.devices", "trainer.num_nodes"})
# Where data lie that are known by their content: the data fingerprint, not the path, says whether they are the same.
PLACES_OF_DATA = frozenset({"clips", "source"})


def config_hash(config: DictConfig) -> str:
    """Identifies what a configuration computes: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(computed_values(config), sort_keys=True, default=str).encode()).hexdigest()[:16]


def computed_values(config: DictConfig) -> dict[str, Any]:
    """What a configuration computes with, as plain values: all of it but what only says where and how fast."""
    placed = config.copy()
    for key in ("paths.data_dir", *PLACES_OF_DATA):  # others are made of them, such as the world's root
        OmegaConf.update(placed, key, "", force_add=True)
    for key in NUMBERS_OF_PROCESSES:
        OmegaConf.update(placed, key, 1)
    content = OmegaConf.to_container(placed, resolve=True)
    assert isinstance(content, dict)
    kept = {str(key): value for key, value in content.items() if key not in MACHINE_KEYS | {"frame_cache"}}
    if (codec := lossy_codec(config)) is not None:
        kept["frame_cache"] = codec
    return kept


def lossy_codec(config: DictConfig) -> Any:
    """What the frame cache does to pixels: its codec; None where frames stay as they were decoded."""
    node = OmegaConf.select(config, "frame_cache.codec")
    if node is None or node["_target_"].endswith(".RawCodec"):
        return None
    return OmegaConf.to_container(node, resolve=True)
