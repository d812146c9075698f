import json
from pathlib import Path

import pytest
from running import run

from autodrive.runs.folder import run_config
from autodrive.schema import Prediction, read_jsonl

MERGED_OTHERWISE = (
    "labels={_target_:autodrive.labels.LabelSet,name:mine,classes:["
    "{name:calm,option:Calm,sources:[normal,near_collision],anomalous:false,short:calm},"
    "{name:event,option:Event,sources:[event],anomalous:true,short:event}]}"
)


def replies(folder: Path) -> list[dict]:
    return [
        p.model_dump(exclude={"latency_s", "option_log_probs"})
        for p in read_jsonl(folder / "predictions.jsonl", Prediction)
    ]


def log_probs(folder: Path) -> list[float]:
    found = read_jsonl(folder / "predictions.jsonl", Prediction)
    return [value for p in found for value in p.option_log_probs or ()]


@pytest.fixture(scope="module")
def evaluated(smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval") / "run"
    assert run("eval", f"ckpt={smoke_run}", f"hydra.run.dir={folder}") == 0
    return folder


def test_a_saved_student_gives_the_predictions_of_its_run(smoke_run: Path, evaluated: Path):
    assert replies(evaluated) == replies(smoke_run)
    assert log_probs(evaluated) == pytest.approx(log_probs(smoke_run), abs=1e-4)
    assert (evaluated / "metrics.json").read_text() == (smoke_run / "metrics.json").read_text()


def test_the_folder_of_an_evaluation(smoke_run: Path, evaluated: Path):
    for name in ("metrics.json", "predictions.jsonl", "report.html", "provenance.json", "dropped.jsonl"):
        assert (evaluated / name).is_file(), name
    config = run_config(evaluated)
    assert config.ckpt == str(smoke_run)
    assert (config.fps, config.num_steps) == (5, 24)  # the run's, not eval's defaults
    facts = json.loads((evaluated / "provenance.json").read_text())
    assert facts["data_fingerprint"] == json.loads((smoke_run / "provenance.json").read_text())["data_fingerprint"]


def test_the_command_line_changes_the_run_s_configuration(
    smoke_run: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "run"
    changes = ["labels=event2", f"clips={manifest}", "fps=2", "split=val", "evaluation.modes=[direct]"]
    assert run("eval", f"ckpt={smoke_run}", *changes, f"hydra.run.dir={folder}") == 0
    found = read_jsonl(folder / "predictions.jsonl", Prediction)
    assert {p.mode for p in found} == {"direct"}
    assert {p.answer for p in found if p.task == "mcq"} == {"normal", "event"}
    assert {name for p in found if p.task == "mcq" for name in p.options} == {"normal", "near_collision", "collision"}
    assert all(p.clip_id.startswith("val_") for p in found)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {key.split("/")[0] for key in metrics} == {"val"}
    assert "val: " in capsys.readouterr().out
    assert "val clips of" in (folder / "report.html").read_text(encoding="utf-8")
    assert run_config(folder).fps == 2


def test_with_other_labels_the_student_is_asked_its_own_question_and_its_answer_is_folded(
    smoke_run: Path, evaluated: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Also about clips whose label only the other set knows: here every collision is called an event."""
    clips = manifest.parent / "events.jsonl"
    clips.write_text(manifest.read_text().replace('"label":"collision"', '"label":"event"'))
    changes = ["labels=event2", f"clips={clips}", "evaluation.modes=[direct]", f"hydra.run.dir={tmp_path}"]
    assert run("eval", f"ckpt={smoke_run}", *changes) == 0
    own = [p for p in replies(evaluated) if (p["task"], p["mode"]) == ("mcq", "direct")]
    folded = [p for p in replies(tmp_path) if p["task"] == "mcq"]
    for key in ("clip_id", "options", "reply"):
        assert [p[key] for p in folded] == [p[key] for p in own], key
    events = {"normal": "normal", "near_collision": "event", "collision": "event", None: None}
    for key in ("answer", "parsed"):
        assert [p[key] for p in folded] == [events[p[key]] for p in own], key
    ours, theirs = (json.loads((path / "metrics.json").read_text()) for path in (tmp_path, evaluated))
    assert ours["test/accuracy"] == theirs["test/binary_accuracy"]
    assert ours["test/folded_classes"] == 3
    said = "Asked in the student's own classes (labels=event3)"
    assert said in capsys.readouterr().out
    assert said.replace("'", "&#39;") in (tmp_path / "report.html").read_text(encoding="utf-8")
    facts = json.loads((tmp_path / "provenance.json").read_text())
    assert facts["folded_classes"] == {"normal": "normal", "near_collision": "event", "collision": "event"}


def test_an_untrained_student_is_evaluated_as_it_is(manifest: Path, tmp_path: Path):
    changes = [f"clips={manifest}", "fps=2", "num_workers=0", "evaluation.modes=[direct]"]
    assert run("eval", "ckpt=null", *changes, f"hydra.run.dir={tmp_path}") == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test/n"] == 9
    assert metrics["test/parse_failure_count"] == 9  # it has never seen an answer


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("student=qwen2_5_vl_7b", "student: comes with ckpt="),
        ("scale=paper", "scale: comes with ckpt="),
        ("student_from=elsewhere", "student_from: comes with ckpt="),
        ("seed=1", "seed: comes with ckpt="),
        (
            MERGED_OTHERWISE,
            "labels=mine: the sources of the student's class 'collision' (collision) are in none of its classes",
        ),
        ("split=tset", "split=tset: choose one of train, val, test"),
        ("fps=60", "highest usable value is fps=31.5"),
    ],
)
def test_contradictions_with_the_checkpoint_are_refused(
    argument: str, said: str, smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run("eval", f"ckpt={smoke_run}", argument, f"hydra.run.dir={tmp_path}") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("error: ") == 1


def test_labels_of_a_strangers_run_call_nothing_though_others_are_given(
    smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """What the run was taught is still read, for its student's question."""
    stranger = tmp_path / "stranger" / ".hydra" / "config.yaml"
    stranger.parent.mkdir(parents=True)
    text = (smoke_run / ".hydra" / "config.yaml").read_text()
    stranger.write_text(text.replace("_target_: autodrive.labels.LabelSet", "_target_: torch.load"))
    assert run("eval", f"ckpt={tmp_path / 'stranger'}", "labels=event2", f"hydra.run.dir={tmp_path / 'out'}") == 2
    assert "labels._target_: torch.load is not named by any file below conf/" in capsys.readouterr().err


def test_a_student_without_its_run_is_not_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("eval", "ckpt=null", "student_from=runs/a", f"hydra.run.dir={tmp_path}") == 2
    assert "student_from=runs/a: only train.py starts from it; evaluate its student with ckpt=runs/a" in (
        capsys.readouterr().err
    )


def test_a_run_without_a_saved_student_is_named(smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    killed = tmp_path / "killed"
    (killed / ".hydra").mkdir(parents=True)
    (killed / ".hydra" / "config.yaml").write_bytes((smoke_run / ".hydra" / "config.yaml").read_bytes())
    assert run("eval", f"ckpt={killed}", f"hydra.run.dir={tmp_path / 'out'}") == 2
    assert f"{killed / 'checkpoints' / 'student'}: no student.json" in capsys.readouterr().err
