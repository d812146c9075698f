"""`python train.py -m …`: one folder a job, failures kept, finished jobs skipped, and a table at the end."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from omegaconf import OmegaConf
from running import composed, run
from wandb_files import everything_sent, offline_runs, read_offline

from autodrive.ablation.wandb_table import ABLATIONS
from autodrive.config import register
from autodrive.errors import InputError
from autodrive.tracking.tracker import check_loggers
from autodrive.tracking.wandb_mode import wandb_mode

SOMEBODY, SECRET = "somebody-in-particular", "a-value-of-the-environment"


@pytest.fixture(scope="module")
def arguments(manifest: Path) -> list[str]:
    small = ["experiment=smoke", "num_steps=2", "batch_size=2", "duration_s=2", "evaluation.modes=[direct]"]
    return [*small, "evaluation.num_strips=0", f"clips={manifest}"]


def job_folders(sweep: Path) -> dict[str, Path]:
    """Job folders by the part of their name that the sweep varies."""
    return {path.parents[1].name: path.parents[1] for path in sorted(sweep.rglob(".hydra/config.yaml"))}


def rows_of(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "ablation.csv").open() as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def sweep(
    arguments: list[str], repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A real process with W&B but without an account: two jobs at once, and one must fail between two that run."""
    folder = tmp_path_factory.mktemp("sweeps") / "fps"
    command = [sys.executable, str(repository / "train.py"), "-m", "fps=1,60,15", *arguments]
    command += ["hydra/launcher=local_processes", "hydra.launcher.n_jobs=2"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environment |= {"HOME": str(folder.parent), "HYDRA_FULL_ERROR": "0", "MPLCONFIGDIR": matplotlib.get_cachedir()}
    environment |= {"USER": SOMEBODY, "LOGNAME": SOMEBODY, "SOME_TOKEN": SECRET}
    ended = subprocess.run(
        [*command, f"hydra.sweep.dir={folder}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        env=environment,
        cwd=folder.parent,
    )
    return folder, ended


def test_a_failing_job_leaves_its_reason_and_a_non_zero_exit(sweep: tuple[Path, subprocess.CompletedProcess[str]]):
    folder, ended = sweep
    assert ended.returncode == 1, ended.stderr
    assert "error: 1 job(s) failed; see error.json in their folders" in ended.stderr
    folders = job_folders(folder)
    (failed,) = [path for path in folders.values() if (path / "error.json").is_file()]
    error = json.loads((failed / "error.json").read_text())
    assert error["type"] == "InputError"
    assert error["message"] == "fps=60: no clip has that frame rate; the highest usable value is fps=31.5"
    assert "select_clips" in error["traceback"]
    assert not (failed / "metrics.json").exists()
    assert sum((path / "metrics.json").is_file() for path in folders.values()) == 2


def test_jobs_run_side_by_side_and_print_to_files(sweep: tuple[Path, subprocess.CompletedProcess[str]]):
    folder, ended = sweep
    events = re.findall(r"\t#(\d) (:|done|failed)", ended.stdout)
    assert events[:2] == [("0", ":"), ("1", ":")], "the second begins before the first has ended"
    assert events[3] == ("2", ":"), "the third when one of them has"
    assert sorted(events[2:]) == [("0", "done"), ("1", "failed"), ("2", ":"), ("2", "done")]
    printed = {path.name: path.read_text() for path in (folder / "output").iterdir()}
    assert sorted(printed) == ["0.txt", "1.txt", "2.txt"]
    assert "fps=60: no clip has that frame rate" in printed["1.txt"]
    assert not [text for text in printed.values() if "Traceback" in text or "wandb" in text.lower()]


def test_job_folders_are_named_by_their_overrides(sweep: tuple[Path, subprocess.CompletedProcess[str]]):
    folder, _ = sweep
    names = list(job_folders(folder))
    assert len(names) == 3
    for fps in ("1", "15", "60"):
        assert [name for name in names if f"_fps-{fps}_" in f"_{name}_"], names
    assert {path.parent for path in job_folders(folder).values()} == {folder}
    assert not [name for name in names if set(name) & set(" /'\"[]")]


def test_the_table_shows_published_rows_ours_and_the_failure(sweep: tuple[Path, subprocess.CompletedProcess[str]]):
    folder, ended = sweep
    rows = {float(row["fps"]): row for row in rows_of(folder)}
    assert list(rows) == [1, 15, 30, 60]
    assert [row["status"] for row in rows.values()] == ["done", "done", "not run", "failed"]
    assert [row["published_accuracy"] for row in rows.values()][:3] == ["40.91", "65.66", "76.26"]
    assert rows[1]["n"] == "9"
    assert "highest usable value is fps=31.5" in rows[60]["error"]
    for text in ((folder / "ablation.md").read_text(), (folder / "ablation.html").read_text(), ended.stdout):
        assert "Frame rate" in text
        assert "40.91" in text


def test_wandb_works_without_account_or_network(sweep: tuple[Path, subprocess.CompletedProcess[str]]):
    """One offline run a job that trained, and one for the table, all in a group; nothing asked, nothing printed."""
    folder, ended = sweep
    assert "wandb" not in ended.stderr.lower()
    trained = [path for path in job_folders(folder).values() if (path / "metrics.json").is_file()]
    jobs = [read_offline(path) for path in trained]
    assert sorted(job.run.display_name for job in jobs) == ["fps=1", "fps=15"]
    assert {(job.run.job_type, job.run.run_group, job.exit_code) for job in jobs} == {("train", "fps", 0)}
    assert sorted((job.config["fps"], job.config["paper/fps"], job.config["run/swept"]) for job in jobs) == [
        (1, 1, "fps"),
        (15, 15, "fps"),
    ]
    table = read_offline(folder)
    assert (table.run.job_type, table.run.run_group, table.run.project) == ("table", "fps", jobs[0].run.project)
    assert len({table.run.run_id, *(job.run.run_id for job in jobs)}) == 3


def test_the_sweep_s_table_in_wandb_holds_what_the_csv_does(sweep: tuple[Path, subprocess.CompletedProcess[str]]):
    folder, _ = sweep
    table = read_offline(folder)
    accuracy = {row["row"]: row for row in table.table("ablations") if row["metric"] == "accuracy"}
    for row in rows_of(folder):
        logged = accuracy[row["fps"]]
        assert tuple(logged) == ABLATIONS
        assert (logged["status"], str(logged["n"])) == (row["status"], row["n"])
        assert (logged["sweep"], logged["paper_table"]) == ("fps", "autodrive/table3_fps")
        for ours, theirs in (("ours", "accuracy"), ("ours_low", "accuracy_ci_low"), ("ours_high", "accuracy_ci_high")):
            assert logged[ours] == (pytest.approx(100 * float(row[theirs])) if row[theirs] else None)
        assert logged["published"] == (float(row["published_accuracy"]) if row["published_accuracy"] else None)
    lines = table.table("ablation/accuracy_table")
    published = {row["step"]: row["lineVal"] for row in lines if row["lineKey"] == "published"}
    assert published == {1: 40.91, 15: 65.66, 30: 76.26}
    ours = {row["step"]: row["lineVal"] for row in lines if row["lineKey"] == "ours"}
    assert ours == {float(name): row["ours"] for name, row in accuracy.items() if row["ours"] is not None}
    assert "_wandb/visualize/ablation/accuracy" in table.config
    assert table.summary["failed_jobs"] == 1
    (verdict,) = {row["verdict"] for row in accuracy.values()}
    assert table.summary["verdict"] == verdict


def test_nothing_that_wandb_would_send_names_the_machine_or_the_user(
    sweep: tuple[Path, subprocess.CompletedProcess[str]], manifest: Path
):
    folder, _ = sweep
    places = [folder, *(path for path in job_folders(folder).values() if offline_runs(path))]
    assert len(places) == 3
    for place in places:
        sent = everything_sent(place)
        assert b"table3_fps" in sent or b"rules_one_order" in sent
        for private in (
            SOMEBODY,
            SECRET,
            str(folder.parent),
            str(manifest.parent),
            str(Path.home()),
            os.path.sep + "tmp",
        ):
            assert private.encode() not in sent, (place, private)


def test_running_the_folder_again_does_what_is_missing(
    sweep: tuple[Path, subprocess.CompletedProcess[str]], arguments: list[str]
):
    folder, _ = sweep
    done = {path: path.stat().st_mtime_ns for path in folder.glob("*/predictions.jsonl")}
    (lost,) = [path for path in done if "fps-1_" in f"{path.parent.name}_"]
    (lost.parent / "metrics.json").unlink()
    assert run("train", "-m", "fps=1,15", *arguments, "logger=csv", f"hydra.sweep.dir={folder}") == 1  # 60 is still bad
    (kept,) = [path for path in done if path != lost]
    assert kept.stat().st_mtime_ns == done[kept]
    assert lost.stat().st_mtime_ns > done[lost]
    assert (lost.parent / "metrics.json").is_file()


def test_groups_make_sane_folder_names_and_rows(arguments: list[str], tmp_path: Path):
    sweep = ["mixture=uniform,balanced", "resolution=8x4", "fps=1", "logger=csv", f"hydra.sweep.dir={tmp_path}"]
    assert run("train", "-m", *arguments, *sweep) == 0
    names = list(job_folders(tmp_path))
    assert sorted(name.split("_mixture-")[1].split("_")[0] for name in names) == ["balanced", "uniform"]
    assert all("_fps-1_" in name and "/" not in name for name in names)
    assert {row["mixture"]: row["status"] for row in rows_of(tmp_path)} == {
        "unbalanced": "not run",
        "balanced": "done",
        "uniform": "done",
    }


def test_a_sweep_in_which_nothing_can_run_is_wrong_input(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    bad = ["fps=70,80", "logger=csv", f"hydra.sweep.dir={tmp_path}"]
    assert run("train", *arguments, "-m", *bad) == 2  # the flag may come anywhere
    assert capsys.readouterr().err.startswith("error: no job could run: InputError: fps=")
    assert len(list(tmp_path.glob("*/error.json"))) == 2


def test_an_unknown_table_is_noticed_before_the_first_job(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run("train", "-m", "fps=1,15", *arguments, "table=nope", f"hydra.sweep.dir={tmp_path}") == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: table=nope: no such published table; choose one of autodrive/")
    assert "\n" not in error
    assert not list(tmp_path.glob("*/.hydra"))


def test_a_job_s_bug_is_recorded_and_the_next_job_runs(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    schedules = "run_samples.schedule_with_a_bug,autodrive.training.schedules.warmup_cosine"
    sweep = [f"schedule._target_={schedules}", "fps=1", "logger=csv", f"hydra.sweep.dir={tmp_path}"]
    assert run("train", "-m", *arguments, *sweep) == 1
    (error,) = tmp_path.glob("*/error.json")
    facts = json.loads(error.read_text())
    assert facts["type"] == "ZeroDivisionError"
    assert len(list(tmp_path.glob("*/metrics.json"))) == 1


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("fps-1", "fps-1"),
        ("mixture-balanced_resolution-32x4", "mixture-balanced_resolution-32x4"),
        ("clips-/data/my clips/a=b.jsonl_fps-1", "clips-my-clips-a-b.jsonl_fps-1"),
        ("clips-a/b/c.jsonl_source-/d/e/f/", "clips-b-c.jsonl_source-e-f"),
        ("", "job"),
    ],
)
def test_folder_names_have_no_slashes(overrides: str, name: str):
    register()
    assert OmegaConf.create({"x": "${folder_name:${y}}", "y": overrides}).x == name


def test_long_folder_names_stay_apart():
    register()
    names = {OmegaConf.create({"x": "${folder_name:${y}}", "y": "a" * 300 + end}).x for end in "bc"}
    assert len(names) == 2
    assert all(len(name) < 220 for name in names)


@pytest.mark.parametrize("table", ["table5_learning_rate", "table6_duration_resolution"])
def test_axes_take_their_values_from_the_scale(table: str):
    for scale, rates in (("tiny", [1e-4, 1e-3, 2e-3]), ("paper", [1e-6, 1e-5, 2e-5])):
        config = composed("train", [f"experiment=autodrive/{table}", f"scale={scale}"], with_hydra=True)
        swept = OmegaConf.to_container(config.hydra.sweeper.params, resolve=True)
        assert isinstance(swept, dict)
        if "lr" in swept:
            assert sorted(float(value) for value in swept["lr"].split(",")) == sorted(config.axes.lr.values())
            if scale == "paper":
                assert sorted(config.axes.lr.values()) == rates
        else:
            assert swept == {"duration_s": "4,6", "resolution": ",".join(config.axes.resolution.values())}


def test_an_experiment_s_sweep_expands(arguments: list[str], tmp_path: Path):
    sweep = ["experiment=autodrive/table5_learning_rate", "fps=1", "logger=csv", f"hydra.sweep.dir={tmp_path}"]
    small = [a for a in arguments if not a.startswith("experiment=")]
    assert run("train", "-m", *sweep, *small, "num_workers=0", "evaluation.num_strips=0") == 0
    rows = rows_of(tmp_path)
    assert [row["status"] for row in rows] == ["done"] * 3
    assert [float(row["paper_lr"]) for row in rows] == [1e-6, 1e-5, 2e-5]
    assert all(row["published_accuracy"] for row in rows)


def test_wandb_is_offline_for_who_is_not_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_mode() == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password a-key\n")
    assert wandb_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WANDB_MODE": "onlin"}, "WANDB_MODE=onlin: choose one of online"),
        ({"WANDB_MODE": "online"}, "WANDB_MODE=online: no key is there"),
        ({"WANDB_MODE": "online", "WANDB_API_KEY": "abc"}, "WANDB_API_KEY: too short"),
        ({"WANDB_API_KEY": "abc"}, "WANDB_API_KEY: too short"),
    ],
)
def test_wrong_w_and_b_settings_are_found_before_any_work(
    environment: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=said) as caught:
        check_loggers(composed("train"))
    assert "abc" not in str(caught.value)  # a key is never shown
