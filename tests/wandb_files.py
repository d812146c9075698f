"""Reads what Weights & Biases keeps of a run on disk: what `wandb sync` would send."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

HEADER_BYTES, BLOCK_BYTES, CHUNK_HEADER_BYTES = 7, 32_768, 7  # LevelDB's log format, behind a header of W&B's own
FULL, LAST = 1, 4  # kinds of a chunk that end a record
LONGEST_FLUSH_S = 30
RECORD: Any = vars(wandb_internal_pb2)["Record"]  # generated, so that no type is known


@dataclass
class Logged:
    """Everything that one offline run has logged."""

    run: Any
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    def curve(self, key: str) -> dict[int, float]:
        """Values by optimiser step."""
        return {row["trainer/global_step"]: row[key] for row in self.history if key in row}

    def table(self, key: str) -> list[dict[str, Any]]:
        """Rows of a table as it would be sent."""
        (artifact,) = [
            a for a in self.artifacts.values() if f"{key}.table.json" in [c.path for c in a.manifest.contents]
        ]
        content = json.loads(self.files(artifact)[f"{key}.table.json"].read_text())
        return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]

    def files(self, artifact: Any) -> dict[str, Path]:
        """Where the files of an artifact wait to be sent."""
        return {c.path: Path(c.local_path) for c in artifact.manifest.contents if c.local_path}

    def references(self, name: str) -> dict[str, str]:
        """Files of an artifact that are named and not sent."""
        return {c.path: c.ref for c in self.artifacts[name].manifest.contents if c.ref}


def offline_runs(folder: Path) -> list[Path]:
    """Files of the offline runs in a folder."""
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"))


def read_offline(folder: Path) -> Logged:
    """The one offline run in a folder."""
    (path,) = offline_runs(folder)
    deadline = time.monotonic() + LONGEST_FLUSH_S  # W&B's own process writes the end after the run has gone on
    while not (records := list(records_of(path))) or records[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < deadline, f"{path}: the run has not ended"
        time.sleep(0.05)
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    logged = Logged(run)
    for record in records:
        kind = record.WhichOneof("record_type")
        if kind in ("run", "config"):
            for item in (record.run.config if kind == "run" else record.config).update:
                logged.config[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        elif kind == "history":
            rows = ((item.key or ".".join(item.nested_key), item.value_json) for item in record.history.item)
            logged.history.append({key: json.loads(value) for key, value in rows})
        elif kind == "summary":
            for item in record.summary.update:
                logged.summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        elif kind == "metric":
            logged.metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "artifact":
            logged.artifacts[record.artifact.name] = record.artifact
        elif kind == "exit":
            logged.exit_code = record.exit.exit_code
    return logged


def records_of(path: Path) -> Iterator[Any]:
    """The records of an offline run, in order."""
    content, position, parts = path.read_bytes(), HEADER_BYTES, b""
    assert content[:4] in (b":W&B", b"")
    while position + CHUNK_HEADER_BYTES <= len(content):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < CHUNK_HEADER_BYTES:
            position += left
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        position += CHUNK_HEADER_BYTES
        parts += content[position : position + length]
        position += length
        if kind in (FULL, LAST):
            yield RECORD.FromString(parts)
            parts = b""


def everything_sent(folder: Path) -> bytes:
    """All that `wandb sync` would send of a folder's runs.

    Records, but for the place where a file waits, which stays behind, and the files; not the debug logs of W&B itself.
    """
    sent = b""
    for path in offline_runs(folder):
        for record in records_of(path):
            for entry in record.artifact.manifest.contents:
                entry.local_path = ""
            sent += str(record).encode()
        sent += b"".join(f.read_bytes() for f in (path.parent / "files").rglob("*") if f.is_file())
    return sent + b"".join(f.read_bytes() for f in folder.glob("wandb/upload/**/*") if f.is_file())
