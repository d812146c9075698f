"""Writes run folders as train.py leaves them, from predictions of a simulated reader with a given skill."""

import html.parser
import json
import os
import signal
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from running import composed

from autodrive.labels import LabelSet
from autodrive.schema import Mode, Prediction, SetAside, write_jsonl
from autodrive.tasks.scorecard import scorecard
from autodrive.tasks.task_book import TaskBook

LABELS_FILE = Path(__file__).resolve().parents[1] / "conf" / "labels" / "event3.yaml"
NAMES = ("normal", "near_collision", "collision")


def label_set() -> LabelSet:
    node = yaml.safe_load(LABELS_FILE.read_text(encoding="utf-8"))
    return LabelSet(node["name"], node["classes"])


@cache
def prompts_config() -> DictConfig:
    """The node `prompts` of the default configuration."""
    return composed("train").prompts


@cache
def task_book() -> TaskBook:
    """The tasks of the default configuration."""
    return instantiate(prompts_config())


def prediction(
    clip: int,
    parsed: str | None,
    *,
    answer: str | None = None,
    mode: Mode = "direct",
    task: str = "mcq",
    **changes: Any,
) -> Prediction:
    """One prediction; clips 3i, 3i+1 and 3i+2 are siblings, one of each class."""
    answer = answer or NAMES[clip % 3]
    letter = "ABC"[NAMES.index(parsed)] if parsed in NAMES else ""
    fields: dict[str, Any] = {
        "annotation_id": f"a{clip}{task}{mode}",
        "clip_id": f"video{clip}#0",
        "source_video_id": f"scene{clip // 3}",
        "task": task,
        "question": "What happens in this clip?",
        "mode": mode,
        "model": "tiny",
        "weights_digest": "w",
        "data_fingerprint": "f",
        "prompt_hash": "p",
        "finished": True,
        "options": NAMES,
        "answer": answer,
        "reply": letter,
        "parsed": parsed,
        "failure": None if parsed else "empty",
    }
    return Prediction(**(fields | changes))


def reader(skill: float, seed: int, num_clips: int = 198) -> list[Prediction]:
    """Replies that are right with probability `skill`, else one of the other classes, or sometimes unreadable."""
    random = np.random.default_rng(seed)
    predictions = []
    for clip in range(num_clips):
        answer = NAMES[clip % 3]
        wrong = [name for name in NAMES if name != answer]
        parsed = answer if random.random() < skill else wrong[int(random.integers(2))]
        log_probs = tuple(-0.2 if name == parsed else -2.0 - float(random.random()) for name in NAMES)
        unread = random.random() < 0.02
        predictions.append(prediction(clip, None if unread else parsed, option_log_probs=log_probs))
    return predictions


def write_run(
    folder: Path,
    overrides: Sequence[str],
    predictions: Sequence[Prediction] | None,
    *,
    config: dict[str, Any] | None = None,
    choices: dict[str, str] | None = None,
    dropped: Sequence[SetAside] = (),
    error: str | None = None,
) -> Path:
    """A run folder; without predictions it is one that failed."""
    hydra = folder / ".hydra"
    hydra.mkdir(parents=True)
    (hydra / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    chosen = {"student": "tiny_qwen2_5_vl", "dataset": "synthetic", "scale": "tiny", "mixture": "uniform"}
    (hydra / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": chosen | (choices or {})}}}))
    labels = yaml.safe_load(LABELS_FILE.read_text(encoding="utf-8"))
    prompts = OmegaConf.to_container(prompts_config())
    root = {
        "labels": labels,
        "prompts": prompts,
        "fps": 15,
        "lr": 1e-3,
        "duration_s": 6,
        "resolution": "8x4",
        "seed": 0,
        "axes": {},
    }
    (hydra / "config.yaml").write_text(yaml.safe_dump(root | (config or {})))
    if error:
        (folder / "error.json").write_text(json.dumps({"type": "RuntimeError", "message": error, "traceback": "…"}))
    if predictions is not None:
        split = (config or {}).get("split", "test")
        write_jsonl(folder / "predictions.jsonl", predictions)
        write_jsonl(folder / "dropped.jsonl", dropped)
        metrics: dict[str, float] = {}
        for mode, prefix in (("direct", split), ("reasoning", f"{split}_reasoning")):
            metrics |= scorecard([p for p in predictions if p.mode == mode], task_book(), label_set(), prefix)
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


class _Addresses(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]


def addresses(page: str) -> list[str]:
    """Everything that a web page would load or link to."""
    parser = _Addresses()
    parser.feed(page)
    return parser.found


def schedule_with_a_bug(step: int, **settings: float) -> float:
    """Works when it is tried out, and not in training."""
    return 1.0 if step == 0 else settings["num_steps"] / 0


def schedule_that_is_killed(step: int, **settings: float) -> float:
    """What becomes of a process where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.0
