"""The label sets that a run can choose from, for hints about labels that its own set does not know."""

from collections.abc import Sequence

from hydra.utils import instantiate
from omegaconf import OmegaConf

from autodrive.entry_point import CONFIG_FOLDER
from autodrive.labels import LabelSet


def shipped_label_sets() -> list[LabelSet]:
    """Every label set of conf/labels."""
    return [instantiate(OmegaConf.load(path)) for path in sorted((CONFIG_FOLDER / "labels").glob("*.yaml"))]


def sets_that_know(label: str, label_sets: Sequence[LabelSet]) -> list[str]:
    """Names of the label sets in which a source's label belongs to a class."""
    return [labels.name for labels in label_sets if labels.class_of(label) is not None]
