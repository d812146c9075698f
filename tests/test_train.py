import csv
import json
import logging
from collections import Counter
from pathlib import Path

import pytest
from hydra.utils import instantiate
from run_samples import addresses
from running import composed, run, tiny

import train as training
from autodrive.datasets.manifest import load_clips
from autodrive.runs.folder import run_config
from autodrive.schema import Annotation, Clip, Prediction, SetAside, read_jsonl, write_jsonl
from autodrive.tasks.choice import LETTERS
from autodrive.tasks.scorecard import scorecard

SCORES = ("accuracy", "binary_accuracy", "macro_f1", "parse_failures", "average_precision")
CLASSES = ("normal", "near_collision", "collision")


def predictions(folder: Path) -> list[Prediction]:
    return read_jsonl(folder / "predictions.jsonl", Prediction)


def test_run_folder_holds_what_the_contract_names(smoke_run: Path):
    for name in ("metrics.json", "predictions.jsonl", "report.html", "provenance.json", "dropped.jsonl", "metrics.csv"):
        assert (smoke_run / name).is_file(), name
    assert {path.name for path in (smoke_run / ".hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert {path.name for path in (smoke_run / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
        "student",
    }
    assert not (smoke_run / "error.json").exists()


def test_metric_keys_are_literal_fractions_with_intervals(smoke_run: Path):
    metrics = json.loads((smoke_run / "metrics.json").read_text())
    names = [*SCORES, *(f"{name}_{score}" for name in CLASSES for score in ("precision", "recall", "f1"))]
    for prefix in ("test", "test_reasoning"):
        for name in names:
            said = name.removesuffix("_precision")
            if said in CLASSES and not metrics[f"{prefix}/predicted_{said}"]:
                assert f"{prefix}/{name}" not in metrics  # a class that is never said has no precision
                continue
            low, value, high = (metrics[f"{prefix}/{name}{end}"] for end in ("_ci_low", "", "_ci_high"))
            assert 0 <= low <= high <= 1, name
            assert 0 <= value <= 1, name
    assert "test_reasoning/trace_emission_rate_ci_high" in metrics
    assert "test/trace_emission_rate" not in metrics


def test_metrics_are_those_of_the_predictions(smoke_run: Path):
    metrics = json.loads((smoke_run / "metrics.json").read_text())
    config = run_config(smoke_run)
    direct = [p for p in predictions(smoke_run) if p.mode == "direct"]
    again = scorecard(direct, instantiate(config.prompts), instantiate(config.labels))
    assert again == {key: value for key, value in metrics.items() if key.startswith("test/")}


def test_every_test_annotation_is_answered_in_both_modes(smoke_run: Path, manifest: Path):
    asked = read_jsonl(smoke_run / "annotations.jsonl", Annotation)
    clips = {clip.id: clip for clip in read_jsonl(manifest, Clip) if clip.split == "test"}
    assert Counter(a.clip_id for a in asked if a.task == "mcq") == dict.fromkeys(clips, 1)
    assert any(a.task == "closed_qa" for a in asked)
    answered = Counter((p.annotation_id, p.mode) for p in predictions(smoke_run))
    assert answered == {(a.id, mode): 1 for a in asked for mode in ("direct", "reasoning")}
    for p in predictions(smoke_run):
        if p.task == "mcq":
            assert p.answer == clips[p.clip_id].label
        assert p.option_log_probs is not None
        assert len(p.option_log_probs) == len(p.options)


def test_generation_agrees_with_option_scores(smoke_run: Path):
    """Where the first generated token is an option, it is the option with the highest log-probability."""
    lettered = [p for p in predictions(smoke_run) if p.task == "mcq"]
    chosen = [(p, LETTERS.index(p.reply[0])) for p in lettered if p.reply[:1] in LETTERS[: len(p.options)]]
    assert len([p for p, _ in chosen if p.mode == "direct"]) >= 5
    for p, index in chosen:
        assert p.option_log_probs is not None
        assert p.option_log_probs[index] == max(p.option_log_probs), p
    replied = [p for p in predictions(smoke_run) if p.task == "closed_qa" and p.mode == "direct" and p.parsed]
    agreeing = [p for p in replied if p.option_log_probs and p.options.index(str(p.parsed)) == _best(p)]
    # Greedy decoding takes the likeliest token at each step, not the likeliest text: some may differ.
    assert len(agreeing) >= 0.9 * len(replied) > 0


def _best(p: Prediction) -> int:
    assert p.option_log_probs is not None
    return p.option_log_probs.index(max(p.option_log_probs))


def test_provenance_says_what_the_run_was_made_of(smoke_run: Path, repository: Path):
    facts = json.loads((smoke_run / "provenance.json").read_text())
    assert facts["clips_by_split_and_class"]["test"] == dict.fromkeys(CLASSES, 3)
    assert facts["mixture"]["visits_per_epoch"] == dict.fromkeys(CLASSES, 4)
    assert facts["data_fingerprint"] == predictions(smoke_run)[0].data_fingerprint
    assert facts["packages"]["torch"]
    assert facts["num_steps"] == 24
    assert 0 < facts["time"]["fit_s"] <= facts["time"]["total_s"]
    assert facts["peak_memory_mb"] > 100
    assert str(repository) not in json.dumps(facts)
    rates, per_visit = facts["throughput"], facts["mixture"]["annotations_per_visit"]
    assert rates["annotations_per_s"] == pytest.approx(rates["clips_per_s"] * per_visit, rel=0.01)
    assert rates["tokens_per_s"] > 100 * rates["clips_per_s"]
    assert 0 <= rates["share_waiting_for_data"] < 1


def test_losses_fall_and_the_test_metrics_reach_the_loggers(smoke_run: Path):
    with (smoke_run / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert len(losses) == 24
    assert losses[-1] < 0.5 * losses[0]
    assert [row["step"] for row in rows if row["val/accuracy"]] == ["11", "23"]
    metrics = json.loads((smoke_run / "metrics.json").read_text())
    assert float(rows[-1]["test/accuracy"]) == metrics["test/accuracy"]


def test_report_page_is_self_contained(smoke_run: Path):
    page = (smoke_run / "report.html").read_text(encoding="utf-8")
    pictures = [address for address in addresses(page) if address.startswith("data:image/")]
    assert len(pictures) >= 2
    assert not [address for address in addresses(page) if address.startswith(("http", "/", "file"))]


def test_train_can_be_called_and_takes_other_labels_and_resolutions(
    manifest: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """`train(config, run_dir)` without Hydra's folder; fewer steps than a validation interval; budgeted tokens."""
    overrides = ["experiment=smoke", "logger=csv", f"clips={manifest}", "labels=event2", "fps=2", "num_steps=1"]
    overrides += ["resolution=auto", "tokens_per_clip=12", "evaluation.modes=[direct]", "duration_s=2"]
    with caplog.at_level(logging.INFO):
        metrics = training.train(composed("train", overrides), tmp_path)
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert "test/event_f1" in metrics
    assert not [key for key in metrics if key.startswith("test_reasoning/")]
    assert "resolution=auto: 6x" in caplog.text
    saved = json.loads((tmp_path / "checkpoints" / "student" / "student.json").read_text())
    assert saved["processor"]["resolution"].startswith("6x")


def losses_of(run_dir: Path) -> list[float]:
    with (run_dir / "metrics.csv").open() as lines:
        return [float(row["train/loss"]) for row in csv.DictReader(lines) if row["train/loss"]]


def test_packing_and_checkpointed_activations_change_no_step(world_dir: Path, tmp_path: Path):
    """One row a step, and rows so short that a step takes several: the same losses, step by step."""
    shared = {"num_steps": 4, "evaluation.modes": "[direct]", "trainer.val_check_interval": 4}
    cheap = {"tokens_per_row": 260, "method.gradient_checkpointing": "true"}
    for name, changes in (("one_row", {}), ("many_rows", cheap)):
        assert run("train", *tiny(world_dir, **shared, **changes), f"hydra.run.dir={tmp_path / name}") == 0
    rows = [
        json.loads((tmp_path / name / "provenance.json").read_text())["throughput"]["rows_per_step"]
        for name in ("one_row", "many_rows")
    ]
    assert rows[0] == 1
    assert rows[1] >= 2
    assert losses_of(tmp_path / "many_rows") == pytest.approx(losses_of(tmp_path / "one_row"), rel=1e-4)
    assert len(set(losses_of(tmp_path / "one_row"))) == 4


def test_clips_below_the_frame_rate_are_dropped_with_the_reason(manifest: Path, tmp_path: Path):
    clips = load_clips(manifest)
    slow = next(clip.id for clip in clips if clip.split == "train")
    clips = [_at_four_fps(clip) if clip.id == slow else clip for clip in clips]
    write_jsonl(tmp_path / "clips.jsonl", clips)
    folder = tmp_path / "run"
    overrides = ["experiment=smoke", "logger=csv", f"clips={tmp_path / 'clips.jsonl'}", "fps=5", "num_steps=1"]
    assert run("train", *overrides, "evaluation.modes=[direct]", f"hydra.run.dir={folder}") == 0
    (dropped,) = read_jsonl(folder / "dropped.jsonl", SetAside)
    assert (dropped.item, dropped.reason) == (slow, "frame_rate_too_high")
    facts = json.loads((folder / "provenance.json").read_text())
    assert sum(sum(counts.values()) for counts in facts["clips_by_split_and_class"].values()) == len(clips) - 1
    assert facts["clips_dropped"] == 1


def _at_four_fps(clip: Clip) -> Clip:
    return clip.model_copy(update={"views": {"road": clip.road.model_copy(update={"native_fps": 4.0})}})


def test_a_finished_run_is_not_trained_again(smoke_run: Path, world_dir: Path):
    before = (smoke_run / "predictions.jsonl").stat().st_mtime_ns
    arguments = tiny(world_dir, num_steps=24, lr=3e-3, **{"trainer.val_check_interval": 12})
    assert run("train", *arguments, f"hydra.run.dir={smoke_run}") == 0
    assert (smoke_run / "predictions.jsonl").stat().st_mtime_ns == before


def test_another_configuration_does_not_overwrite_a_finished_run(
    smoke_run: Path, world_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("metrics.json", "provenance.json"):
        (folder / name).write_bytes((smoke_run / name).read_bytes())
    assert run("train", *tiny(world_dir, lr=1e-3), f"hydra.run.dir={folder}") == 2
    assert "finished run of another configuration" in capsys.readouterr().err
