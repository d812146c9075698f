"""Does a student look, and does it say the same again: probes, drawn replies, and what is said of them."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from patch_student import build_patch_student
from run_samples import NAMES, label_set, prediction, reader, task_book, write_run
from running import run
from scipy.stats import t as student_t
from student_samples import make_sample, make_student, pack_one

from autodrive.datasets.manifest import load_clips
from autodrive.errors import InputError
from autodrive.evaluation.stability import agreement
from autodrive.inference.answering import Respondent, Samples, TokenDraw, answer_questions
from autodrive.inference.probes import NOISE_LEVELS, probe
from autodrive.mixture.clip_batches import ClipReader
from autodrive.reporting.looking import blindness, probe_rows
from autodrive.reporting.run_page import write_run_page
from autodrive.schema import Clip, Prediction, ProbeName, Question, read_jsonl
from autodrive.tasks.looking import probe_losses, sampled_scores
from autodrive.trees.packing import pack_trees
from autodrive.trees.sample import Video
from autodrive.video.decoder import PyAVDecoder
from autodrive.video.frame_grid import FrameGrid

PROBES = ("blind", "shuffled", "frozen", "noise")


@pytest.fixture(scope="module")
def asked(smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("looking") / "run"
    how = ["evaluation.modes=[direct]", f"evaluation.probes=[{','.join(PROBES)}]", "evaluation.samples=3"]
    assert run("eval", f"ckpt={smoke_run}", *how, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def clips(manifest: Path) -> list[Clip]:
    return [clip for clip in load_clips(manifest) if clip.split == "test"]


@pytest.fixture(scope="module")
def clip_reader() -> ClipReader:
    return ClipReader(PyAVDecoder(), build_patch_student(["words"], seed=0).processor, FrameGrid(5))


def shown(name: ProbeName, clip: Clip, clips: list[Clip], clip_reader: ClipReader) -> Video:
    show = pickle.loads(pickle.dumps(probe(name, clip_reader, clips, seed=0)))  # as loader processes get it
    (part,) = show(clip)
    return part


def test_another_video_is_of_another_scene(clips: list[Clip], clip_reader: ClipReader):
    own = {clip.id: clip_reader.read(clip).frames.frames_TCHW for clip in clips}
    for clip in clips:
        frames = shown("shuffled", clip, clips, clip_reader).frames.frames_TCHW
        (other,) = (c for c in clips if own[c.id].shape == frames.shape and torch.equal(own[c.id], frames))
        assert other.source_video_id != clip.source_video_id
    with pytest.raises(InputError, match="all clips are of one source video"):
        probe("shuffled", clip_reader, clips[:1], seed=0)


def test_a_frozen_video_is_its_middle_frame_at_all_times(clips: list[Clip], clip_reader: ClipReader):
    own, frozen = clip_reader.read(clips[0]), shown("frozen", clips[0], clips, clip_reader)
    assert torch.equal(frozen.frames.timestamps_s, own.frames.timestamps_s)
    frames_TCHW = frozen.frames.frames_TCHW
    assert frames_TCHW.shape == own.frames.frames_TCHW.shape
    assert torch.equal(frames_TCHW, own.frames.frames_TCHW[len(frames_TCHW) // 2].expand_as(frames_TCHW))


def test_noise_is_as_strong_as_it_says_and_the_same_each_time(clips: list[Clip], clip_reader: ClipReader):
    own, noisy = clip_reader.read(clips[0]), shown("noise", clips[0], clips, clip_reader)
    assert torch.equal(noisy.frames.frames_TCHW, shown("noise", clips[0], clips, clip_reader).frames.frames_TCHW)
    added = noisy.frames.frames_TCHW.float() - own.frames.frames_TCHW.float()
    unclipped = (own.frames.frames_TCHW > 110) & (own.frames.frames_TCHW < 145)
    assert 0.7 * NOISE_LEVELS < float(added[unclipped].std()) < NOISE_LEVELS  # some of it is cut off at black and white
    assert not torch.equal(added[0], added[1])


def test_a_run_under_probes_leaves_replies_scores_and_a_sentence(asked: Path, smoke_run: Path, capsys):
    metrics = json.loads((asked / "metrics.json").read_text())
    own = read_jsonl(asked / "predictions.jsonl", Prediction)
    blind = read_jsonl(asked / "predictions_blind.jsonl", Prediction)
    for name in PROBES:
        assert metrics[f"test_{name}/n"] == metrics["test/n"] == 9
        lost = metrics["test/accuracy"] - metrics[f"test_{name}/accuracy"]
        assert metrics[f"test_{name}/accuracy_lost"] == pytest.approx(lost)
        assert 0 <= metrics[f"test_{name}/accuracy_lost_p_value"] <= 1
    # Who sees no video says the same of every clip: the question is all there is.
    of_class = [p.option_log_probs for p in blind if p.task == "mcq"]
    assert np.ptp(np.array(of_class), axis=0).max() < 1e-4
    assert np.ptp(np.array([p.option_log_probs for p in own if p.task == "mcq"]), axis=0).max() > 1e-3
    assert [p.annotation_id for p in blind] == [p.annotation_id for p in own]
    page = (asked / "report.html").read_text(encoding="utf-8")
    sentence = blindness(metrics, "test")
    assert sentence is not None  # 24 steps of training do not make anybody look
    assert page.index("It is not shown that this student looks") < page.index("Accuracy ")
    assert "Does it look?" in page
    # What the student says by itself is not touched by what else it is asked.
    before = read_jsonl(smoke_run / "predictions.jsonl", Prediction)
    assert [p.reply for p in own] == [p.reply for p in before if p.mode == "direct"]


def test_drawn_replies_are_kept_apart_and_do_not_depend_on_who_else_is_asked(
    asked: Path, smoke_run: Path, tmp_path: Path
):
    drawn = read_jsonl(asked / "samples.jsonl", Prediction)
    own = read_jsonl(asked / "predictions.jsonl", Prediction)
    assert [p.sample for p in own] == [None] * len(own)
    assert [(p.annotation_id, p.sample) for p in drawn] == [(p.annotation_id, n) for p in own for n in range(3)]
    metrics = json.loads((asked / "metrics.json").read_text())
    assert metrics["test/sampled_accuracy"] == pytest.approx(
        np.mean([p.parsed == p.answer for p in drawn if p.task == "mcq"])
    )
    assert {"test/agreement", "test/agreement_ci_low", "test/closed_qa_agreement"} <= set(metrics)
    how = ["evaluation.modes=[direct]", "evaluation.samples=3", "batch_size=2", "questions=rules_one_order"]
    assert run("eval", f"ckpt={smoke_run}", *how, f"hydra.run.dir={tmp_path}") == 0
    again = read_jsonl(tmp_path / "samples.jsonl", Prediction)
    assert np.mean([a.reply == b.reply for a, b in zip(again, drawn, strict=True)]) > 0.98  # but for rounding


def test_tokens_are_drawn_as_often_as_they_are_probable():
    student = make_student()
    row = pack_one(student, make_sample(branches=make_sample().branches[:2]))
    logits = torch.tensor([[0.0, 1.0, 2.0, -30.0], [3.0, 0.0, 0.0, 0.0]])
    for temperature in (1.0, 0.5):
        draw = TokenDraw(Samples(1, temperature, 0), 0, row.spans)
        found = torch.stack([draw(logits) for _ in range(4000)])
        for span, expected in enumerate((logits / temperature).softmax(-1)):
            shares = torch.bincount(found[:, span], minlength=4) / 4000
            assert torch.allclose(shares, expected, atol=0.03)
    alone, together = TokenDraw(Samples(1), 0, row.spans[1:]), TokenDraw(Samples(1), 0, row.spans)
    assert [int(alone(logits[1:])) for _ in range(50)] == [int(together(logits)[1]) for _ in range(50)]
    other = TokenDraw(Samples(1), 1, row.spans[1:])
    alone = TokenDraw(Samples(1), 0, row.spans[1:])
    assert [int(alone(logits[1:])) for _ in range(50)] != [int(other(logits[1:])) for _ in range(50)]


def test_a_cold_draw_is_the_greedy_reply():
    student, sample = make_student(), make_sample()
    tree = student.processor.encode(sample)
    asked = replace(tree, branches=tuple(branch.asked() for branch in tree.branches))
    questions = {b.annotation_id: Question(task="caption", question="?") for b in sample.branches}
    book = task_book()
    batches = [pack_trees([asked], 10**6)]
    respondent = Respondent("tiny", None, "digest")
    found = list(answer_questions(student, batches, questions, book, respondent, samples=Samples(2, 1e-4, 0)))
    greedy = {r.annotation_id: r.reply for r in found if r.sample is None}
    assert [r.sample for r in found] == [None, 0, 1] * 3
    assert [r.reply for r in found] == [greedy[r.annotation_id] for r in found]


def test_agreement_counts_pairs_and_the_unread_agree_with_nothing():
    said = [["a", "a", "a"], ["a", "a", "b"], ["a", "b", "c"], [None, None, "a"]]
    assert agreement(said).tolist() == pytest.approx([1, 1 / 3, 0, 0])


def drawn_reply(clip: int, parsed: str, number: int) -> Prediction:
    return prediction(clip, parsed, sample=number)


def test_stability_by_hand():
    """Clip 0 is always right, clip 1 never twice the same: half of the pairs agree."""
    said = {0: ["normal"] * 3, 1: ["normal", "near_collision", "collision"]}
    drawn = [drawn_reply(clip, parsed, n) for clip, values in said.items() for n, parsed in enumerate(values)]
    drawn.append(drawn_reply(2, "collision", 0))  # the others of clip 2 are missing
    found = sampled_scores(drawn, task_book(), label_set(), "test")
    assert found["test/agreement"] == pytest.approx(0.5)
    assert found["test/sampled_accuracy"] == pytest.approx((3 + 1) / 6)
    assert found["test/sampled_accuracy_spread"] == pytest.approx(np.std([0.5, 1.0, 0.5], ddof=1))
    # Two questions about one clip are each compared with themselves.
    two = [prediction(0, parsed, annotation_id=parsed, sample=n) for parsed in NAMES[:2] for n in range(2)]
    assert sampled_scores(two, task_book(), label_set(), "test")["test/agreement"] == 1
    # A server may fail so often that no question has two: nothing is known of pairs then.
    assert sampled_scores([drawn[0], drawn[-1]], task_book(), label_set(), "test") == {}


def seeing_and_blind(skill: float) -> tuple[list[Prediction], dict[str, float]]:
    own, blind = reader(skill, seed=0), [prediction(clip, NAMES[0]) for clip in range(198)]
    metrics = {"test_blind/accuracy": 1 / 3, "test_blind/accuracy_ci_low": 0.27, "test_blind/accuracy_ci_high": 0.4}
    losses = probe_losses(own, {"test_blind": blind}, task_book(), label_set())
    return own, metrics | losses


def test_who_looks_is_not_called_blind_and_who_does_not_is(tmp_path: Path):
    own, metrics = seeing_and_blind(0.8)
    assert metrics["test_blind/accuracy_lost"] > 0.4
    assert metrics["test_blind/accuracy_lost_ci_low"] > 0.3
    assert metrics["test_blind/accuracy_lost_p_value"] < 1e-6
    assert blindness(metrics, "test") is None
    assert probe_rows(metrics, "test")[0][3] == "lost"
    own, metrics = seeing_and_blind(0.36)
    sentence = blindness(metrics, "test")
    assert sentence is not None
    assert "33.3 % without the video" in sentence
    assert f"from {100 * metrics['test_blind/accuracy_lost_detectable']:.1f} points on" in sentence
    folder = write_run(tmp_path / "run", [], own)
    kept = json.loads((folder / "metrics.json").read_text()) | metrics
    (folder / "metrics.json").write_text(json.dumps(kept))
    page = write_run_page(folder).read_text(encoding="utf-8")
    assert page.index(sentence.split(":")[0]) < page.index("Accuracy ")


def test_who_does_better_without_the_video_is_not_said_to_differ_by_noise():
    own, blind = [prediction(clip, NAMES[0]) for clip in range(198)], reader(0.8, seed=0)
    metrics = {"test_blind/accuracy": 0.8, "test_blind/accuracy_ci_low": 0.7, "test_blind/accuracy_ci_high": 0.9}
    metrics |= probe_losses(own, {"test_blind": blind}, task_book(), label_set())
    assert metrics["test_blind/accuracy_lost_ci_high"] < -0.3
    assert probe_rows(metrics, "test")[0][3] == "gained"
    sentence = blindness(metrics, "test")
    assert sentence is not None
    assert "which is no loss (-" in sentence


def test_several_probes_are_corrected_for_their_number_and_paired_by_clip():
    own = reader(0.45, seed=0)
    blind = reader(0.36, seed=1)
    alone = probe_losses(own, {"test_blind": blind}, task_book(), label_set())
    several = {f"test_{name}": blind for name in PROBES}
    together = probe_losses(own, several, task_book(), label_set())
    assert together["test_blind/accuracy_lost_p_value"] == pytest.approx(
        min(1.0, 4 * alone["test_blind/accuracy_lost_p_value"])
    )
    half = probe_losses(own, {"test_blind": blind[:99]}, task_book(), label_set())  # on the clips that both answered
    real = np.mean([p.parsed == p.answer for p in own[:99]]) - np.mean([p.parsed == p.answer for p in blind[:99]])
    assert half["test_blind/accuracy_lost"] == pytest.approx(real)
    # By hand: each clip's own difference, whatever the order of replies, and scenes, not clips, that vary.
    lost_N = np.array([(a.parsed == a.answer) - float(b.parsed == b.answer) for a, b in zip(own, blind, strict=True)])
    sums_K = np.add.reduceat(lost_N - lost_N.mean(), np.arange(0, 198, 3))  # three siblings a scene
    error = np.sqrt(66 / 65 * (sums_K**2).sum()) / 198
    shuffled = probe_losses(own, {"test_blind": blind[::-1]}, task_book(), label_set())
    for end, sign in (("low", -1), ("high", 1)):
        expected = lost_N.mean() + sign * student_t.ppf(0.975, 65) * error
        assert shuffled[f"test_blind/accuracy_lost_ci_{end}"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("evaluation.probes=[deaf]", "evaluation.probes=deaf: must be 'blind', 'shuffled', 'frozen' or 'noise'"),
        ("evaluation.samples=1", "evaluation.samples=1: must be 0, or 2 or more"),
        ("evaluation.temperature=0", "evaluation.temperature"),
    ],
)
def test_wrong_wishes_end_in_one_line(argument: str, said: str, smoke_run: Path, tmp_path: Path, capsys):
    assert run("eval", f"ckpt={smoke_run}", argument, f"hydra.run.dir={tmp_path}") == 2
    assert said in capsys.readouterr().err


def test_what_a_comparison_can_find_is_said_before_it_is_run(tmp_path: Path, capsys):
    out = tmp_path / "power.json"
    small = ["num_clips=90", "num_tables=40", "num_seeds=2"]
    assert run("power", *small, f"out={out}") == 0
    record = json.loads(out.read_text())
    assert f"a difference of {100 * record['smallest_difference']:.1f} points" in capsys.readouterr().out
    assert record["num_clips"] == 90
    assert run("power", "num_seeds=1") == 2
    assert "num_seeds=1: one run says nothing about what another seed would change" in capsys.readouterr().err
    assert run("power", *small, "num_seeds=1", "trained=false", "seed_spread=0") == 0
