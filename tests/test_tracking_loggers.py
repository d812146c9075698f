"""What every logger gets, and what happens where one cannot work."""

import csv
import logging
import runpy
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import wandb
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from lightning.pytorch.loggers import CSVLogger
from run_samples import label_set, reader
from running import composed, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args
from wandb_files import offline_runs, read_offline

from autodrive.assembly import build_loggers
from autodrive.config import register
from autodrive.entry_point import CONFIG_FOLDER
from autodrive.errors import InputError
from autodrive.tracking import pictures, wandb_logger
from autodrive.tracking.record import RunRecord
from autodrive.tracking.scores import goals, headline
from autodrive.tracking.tables import Rows, by_interest, clip_rows
from autodrive.tracking.tracker import Tracker, UnfailingLogger, check_loggers
from autodrive.tracking.wandb_logger import Exhibits, Material, WandbRunLogger

RECORD = RunRecord("a run", "train", None, ("dataset:synthetic",), {"fps": 15, "dataset/num_train_scenes": 4})
SHOWN = Exhibits(scores={"test/accuracy": 0.75}, tables={}, charts={}, figures={})
VALID_KEY = "0123456789" * 4


def test_headline_scores_and_their_directions():
    metrics = {f"test/{name}": 0.5 for name in ("accuracy", "accuracy_ci_low", "collision_f1", "predicted_normal", "n")}
    metrics |= {"test/closed_qa_accuracy": 0.5, "test/closed_qa_what_is_it_accuracy": 0.5}
    assert list(headline(metrics, ["collision"], ["closed_qa"])) == [
        "test/accuracy",
        "test/collision_f1",
        "test/n",
        "test/closed_qa_accuracy",
    ]
    assert goals(["test/n", "val/parse_failures"]) == {"val/parse_failures": "minimize"}


def test_rows_of_clips_begin_with_the_mistakes_each_kind_in_turn():
    predictions = reader(0.5, 3, num_clips=30)
    rows = clip_rows(by_interest(predictions), label_set(), {"video1#0": {"weather": "rain", "scenario": "cut_in"}})
    cells = [dict(zip(rows.columns, row, strict=True)) for row in rows.rows]
    assert len(cells) == 30
    wrong = [cell for cell in cells if not cell["right"]]
    assert cells[: len(wrong)] == wrong
    kinds = [(cell["truth"], cell["read"]) for cell in wrong]
    assert len(set(kinds[: len(set(kinds))])) == len(set(kinds))
    (known,) = [cell for cell in cells if cell["clip"] == "video1#0"]
    assert (known["weather"], known["light"], known["hazard"]) == ("rain", None, "cut_in")


def frames_of(clip_id: str) -> tuple[np.ndarray, np.ndarray] | None:
    """A bright square that moves; the clip `gone` has no video any more."""
    if clip_id == "gone":
        return None
    frames = np.full((30, 28, 56, 3), 40, dtype=np.uint8)
    for index, frame in enumerate(frames):
        frame[8:16, index : index + 8] = (250, 60, 60)
    return frames, np.arange(30) / 15


def test_films_of_clips_can_be_played_and_pictures_stop_at_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ((clip, film),) = pictures.drawn(["gone", "a"], frames_of, "video", tmp_path)
    assert clip == "a"
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate or 0) == pytest.approx(15, rel=0.01)
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(decoded) == 30
    assert decoded[0].shape == (160, 320, 3)
    assert decoded[0][70, 20, 0] > 180 > decoded[29][70, 20, 0]  # where the square was, and is no more
    assert list(pictures.drawn(["a"], frames_of, "none", tmp_path)) == []
    (one,) = pictures.drawn(["a"], frames_of, "strips", tmp_path)
    size = one[1].stat().st_size
    monkeypatch.setattr(pictures, "MOST_BYTES", int(2.5 * size))
    assert len(list(pictures.drawn(["a"] * 9, frames_of, "strips", tmp_path))) == 2


def test_films_and_weights_are_sent_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    exhibits = Exhibits(
        scores={},
        tables={},
        charts={},
        figures={},
        clips=Rows(("clip", "right"), [["a", False], ["gone", True]]),
        frames_of=frames_of,
        used=[Material("clips", "dataset", "f1", {"clips.jsonl": weights}, {})],
        made=[Material("student", "model", "d1", {"model.safetensors": weights}, {"adapter": None})],
    )
    logger = UnfailingLogger(WandbRunLogger("p", "video", upload_student=True, save_dir=str(tmp_path / "run")))
    with Tracker([logger], RECORD) as tracker:
        tracker.finish(lambda: exhibits)
    logged = read_offline(tmp_path / "run")
    rows = logged.table("clips")
    assert [(row["clip"], row["video"] is None) for row in rows] == [("a", False), ("gone", True)]
    (table,) = [a for a in logged.artifacts.values() if a.name.endswith("-clips")]
    with av.open(str(logged.files(table)[rows[0]["video"]["path"]])) as container:
        assert container.streams.video[0].frames == 30
    sent = logged.files(logged.artifacts["student"])
    assert {name: file.read_bytes() for name, file in sent.items()} == {"model.safetensors": b"weights"}
    assert logged.references("clips") == {"clips.jsonl": "autodrive://f1/clips.jsonl"}  # clips never are


@pytest.mark.parametrize("option", ["csv", "tensorboard", "mlflow"])
def test_other_loggers_get_the_same_scalars_and_configuration(option: str, tmp_path: Path):
    place = [f"logger.mlflow.tracking_uri=sqlite:///{tmp_path}/mlflow.db"] if option == "mlflow" else []
    loggers = build_loggers(composed("train", [f"logger={option}", *place]), tmp_path)
    with Tracker(loggers, RECORD) as tracker:
        for logger in loggers:
            logger.log_metrics({"train/loss": 2.5}, 3)
        tracker.finish(lambda: SHOWN, step=8)
    with (tmp_path / "metrics.csv").open() as lines:
        found = {(key, row["step"]): float(v) for row in csv.DictReader(lines) for key, v in row.items() if v}
    assert (found["train/loss", "3"], found["test/accuracy", "8"]) == (2.5, 0.75)
    assert yaml.safe_load((tmp_path / "hparams.yaml").read_text()) == RECORD.config
    if option == "tensorboard":
        events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(3, 2.5)]
        assert [(e.step, e.value) for e in events.Scalars("test/accuracy")] == [(8, 0.75)]
        assert yaml.safe_load((tmp_path / "tensorboard" / "hparams.yaml").read_text()) == RECORD.config
    if option == "mlflow":
        database = sqlite3.connect(tmp_path / "mlflow.db")
        assert dict(database.execute("select key, value from params")) == {k: str(v) for k, v in RECORD.config.items()}
        logged = database.execute("select key, step, value from metrics").fetchall()
        assert sorted(logged) == [("test/accuracy", 8, 0.75), ("train/loss", 3, 2.5)]
        assert database.execute("select status from runs").fetchall() == [("FINISHED",)]
        assert dict(database.execute("select key, value from tags"))["mlflow.user"] == ""


def wrong_file(folder: Path) -> Exhibits:
    """What is to be shown of a run whose predictions have gone."""
    raise InputError(f"{folder}: no such manifest")


class FullDisk(CSVLogger):
    """Lightning's CSV logger on a disk that is full from the second write on."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        raise OSError(28, "No space left on device")


def test_a_logger_that_fails_is_one_warning_and_the_others_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    broken, sound = (UnfailingLogger(kind(str(tmp_path / kind.__name__), "", "")) for kind in (FullDisk, CSVLogger))
    with caplog.at_level(logging.WARNING), Tracker([broken, sound], RECORD) as tracker:
        for step in range(3):
            for logger in (broken, sound):
                logger.log_metrics({"train/loss": 1.0}, step)
        tracker.finish(lambda: wrong_file(tmp_path))
        sound.log_metrics({"train/loss": 1.0}, 3)
    lines = [record.message for record in caplog.records if "goes on" in record.message]
    assert lines == [
        "FullDisk has stopped logging, the run goes on: [Errno 28] No space left on device",
        f"what is shown of this run has stopped logging, the run goes on: {tmp_path}: no such manifest",
    ]
    assert len((tmp_path / "CSVLogger" / "metrics.csv").read_text().splitlines()) == 5


class _Refusing(BaseHTTPRequestHandler):
    """A server that knows nobody."""

    def do_POST(self) -> None:
        self.send_response(401)
        self.end_headers()

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def refusing_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def logged_in(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    for name, value in (("API_KEY", VALID_KEY), ("BASE_URL", server), ("MODE", "online")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    wandb.teardown()  # its process keeps the environment that it was started in


def test_a_key_that_is_refused_is_wrong_input(refusing_server: str, monkeypatch: pytest.MonkeyPatch):
    logged_in(monkeypatch, refusing_server)
    with pytest.raises(InputError, match="WANDB_API_KEY: W&B refuses the key") as caught:
        check_loggers(composed("train"))
    assert VALID_KEY not in str(caught.value)


def test_without_a_connection_a_run_is_logged_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    logged_in(monkeypatch, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(wandb_logger, "MOST_SECONDS_TO_CONNECT", 2)
    logger = UnfailingLogger(WandbRunLogger("p", "none", upload_student=False, save_dir=str(tmp_path)))
    with caplog.at_level(logging.WARNING, logger="autodrive"), Tracker([logger], RECORD) as tracker:
        tracker.finish(lambda: SHOWN)
    (line,) = [record.message for record in caplog.records if "W&B" in record.message]
    assert "this run is logged offline; `wandb sync` sends it later" in line
    assert VALID_KEY not in line
    assert read_offline(tmp_path).summary["test/accuracy"] == 0.75


def test_a_run_that_fails_shows_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = UnfailingLogger(WandbRunLogger("p", "none", upload_student=False, save_dir=str(tmp_path)))
    with pytest.raises(ZeroDivisionError), Tracker([logger], RECORD):
        raise ZeroDivisionError
    assert read_offline(tmp_path).exit_code == 1


@pytest.mark.parametrize(
    ("overrides", "said"),
    [(["logger.wandb.media=films"], "logger.wandb.media=films"), (["logger.wandb.project="], "logger.wandb.project")],
)
def test_wrong_settings_of_a_logger_are_refused(
    overrides: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run("train", *overrides, f"hydra.run.dir={tmp_path}") == 2
    assert said in capsys.readouterr().err


def test_a_logger_whose_package_is_missing_is_found_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="logger=mlflow: its package is missing; pip install mlflow"):
        check_loggers(composed("train", ["logger=mlflow"]))


def test_the_agent_of_a_wandb_sweep_starts_a_training_that_a_table_can_find(repository: Path, tmp_path: Path):
    """The command that W&B's agent would build from the documented file, composed by Hydra."""
    sweep = yaml.safe_load((repository / "experiments" / "wandb_sweep.yaml").read_text())
    chosen = {key: {"value": node["values"][-1]} for key, node in sweep["parameters"].items()}
    macros = create_sweep_command_args({"args": chosen}) | {"program": [sweep["program"]]}
    words: list[str] = []
    for word in sweep["command"]:
        whole = word.startswith("${") and word.endswith("}")
        words += macros.get(word[2:-1], []) if whole else [word]
    assert words[0] == "train.py"
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = compose("train", words[1:], return_hydra_config=True)
    assert (config.fps, config.seed) == (30, sweep["parameters"]["seed"]["values"][-1])
    assert config.hydra.run.dir == f"outputs/sweeps/wandb_fps/fps-30_seed-{config.seed}"
    assert sweep["project"] == config.logger.wandb.project
    assert sweep["metric"]["goal"] == goals([sweep["metric"]["name"]])[sweep["metric"]["name"]]


def test_what_logging_took_is_told(smoke_run: Path, repository: Path):
    script = runpy.run_path(str(repository / "experiments" / "logging_cost.py"))
    found = script["cost"](smoke_run)
    assert 0 < found.seconds < 60
    assert 0 < found.share < 1
    assert 0.1 < found.megabytes < 20


def test_disabled_means_that_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = UnfailingLogger(WandbRunLogger("p", "strips", upload_student=False, save_dir=str(tmp_path)))
    with Tracker([logger], RECORD) as tracker:
        tracker.finish(lambda: SHOWN)
    assert offline_runs(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
