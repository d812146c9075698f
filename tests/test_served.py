"""Any served model as a student: the same questions about the same frames, and what a server can do wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from running import run
from teacher_server import Answer, Received, TeacherServer, completion, serving

from autodrive.datasets.manifest import load_clips
from autodrive.endpoints.pictures import fitting_size
from autodrive.endpoints.reply_cache import ChatReply
from autodrive.endpoints.vision import QUESTION
from autodrive.inference.served import option_scores
from autodrive.mixture.clip_batches import FrameReader
from autodrive.schema import Clip, Prediction, SetAside, read_jsonl
from autodrive.video.decoder import PyAVDecoder
from autodrive.video.frame_grid import FrameGrid

KEY = "sk-OKAPI-key-7"
LIKELY = {"A": -0.2, "B": -2.5, "C": -3.5, "?": -4.0}


def letter_of(pictures: list[np.ndarray]) -> str:
    """An answer that depends on every pixel of the last picture, and on which is the last."""
    return "ABC"[int(pictures[-1].astype(np.int64).sum() % 3)]


def looking(request: Received, number: int) -> Answer:
    """A model that sees: it names colours in their order, and answers letters by pixels and all else in words."""
    if QUESTION in request.text:
        colours = ["red" if picture[..., 0].mean() > picture[..., 2].mean() else "blue" for picture in request.pictures]
        return Answer(f"{colours[0].title()}, then {colours[-1]}.")
    if "letter" not in request.text:
        return Answer("clear")
    said = letter_of(request.pictures) if request.pictures else "A"
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
    if "logprobs" in request.body:
        tokens = [{"token": token, "logprob": value, "bytes": None} for token, value in LIKELY.items()]
        choice["logprobs"] = {"content": [{"token": said, "logprob": -0.2, "top_logprobs": tokens}]}
    return Answer(json.dumps({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}).encode())


@pytest.fixture
def asking(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The command line that asks a server about the smoke run's test clips."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def arguments(server: TeacherServer | str, *more: str, out: str = "run") -> list[str]:
        url = server if isinstance(server, str) else server.base_url
        given = ["student=endpoint", f"base_url={url}", "model=org/looker", f"clips={manifest}", "fps=5"]
        given += [f"student.replies={tmp_path / 'replies'}", "student.server.max_retries=0", "student.form=png"]
        given += ["evaluation.modes=[direct]", "logger=none", "evaluation.num_strips=1"]
        given += ["questions.closed_qa.keys=[weather]"]
        return [*given, *more, f"hydra.run.dir={tmp_path / out}"]

    return arguments


@pytest.fixture(scope="module")
def clips(manifest: Path) -> dict[str, Clip]:
    return {clip.id: clip for clip in load_clips(manifest) if clip.split == "test"}


class Sizer:
    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        return fitting_size(width, height, 448)


def predictions_of(folder: Path) -> list[Prediction]:
    return read_jsonl(folder / "predictions.jsonl", Prediction)


def test_it_is_asked_about_the_pixels_and_scored_as_any_student(asking, clips, smoke_run: Path, tmp_path: Path, capsys):
    with serving(looking) as server:
        assert run("eval", *asking(server)) == 0
    probes, asked = server.received[:2], server.received[2:]
    assert all(QUESTION in request.text for request in probes)  # before the first question
    reader = FrameReader(PyAVDecoder(), Sizer(), FrameGrid(5))
    found = predictions_of(tmp_path / "run")
    for p in found:
        frames_TCHW = reader.read(clips[p.clip_id]).frames.frames_TCHW
        if p.task == "mcq":
            assert p.reply == letter_of([frames_TCHW[-1].permute(1, 2, 0).numpy()])
            assert p.parsed == p.options["ABC".index(p.reply)]
            assert p.option_log_probs == pytest.approx((-0.2, -2.5, -3.5))
            assert (p.model, p.finished) == ("org/looker", True)
        else:
            assert p.option_log_probs is None
    # The questions, their order and what is known of them are those of a student on this machine.
    ids = {p.annotation_id for p in found}
    local = [p for p in predictions_of(smoke_run) if p.mode == "direct" and p.annotation_id in ids]
    assert len(local) == len(found) == 18
    for key in ("annotation_id", "clip_id", "options", "answer", "prompt_hash", "source_video_id"):
        assert [getattr(p, key) for p in found] == [getattr(p, key) for p in local], key
    for request in asked:
        assert len(request.pictures) == 10  # 2 s at 5 frames per second
        assert [part["text"] for part in request.parts[:4:2]] == ["0.00 s:", "0.20 s:"]
        assert request.headers["authorization"] == f"Bearer {KEY}"
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    right = np.mean([p.parsed == p.answer for p in found if p.task == "mcq"])
    assert metrics["test/accuracy"] == pytest.approx(right)
    assert "test/average_precision" in metrics
    assert "test/failed_requests" not in metrics
    assert (tmp_path / "run" / "report.html").is_file()
    said = capsys.readouterr().out
    assert "the server gave no log-probabilities of all options for" in said
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_failed_requests_are_counted_apart_from_unread_replies_and_asked_again(asking, tmp_path: Path, capsys):
    def failing(request: Received, number: int) -> Answer:
        if QUESTION in request.text:
            return looking(request, number)
        answer = looking(request, number)
        if "letter" not in request.text:
            return answer
        kinds = {"A": Answer("busy", 500), "B": Answer(completion("B")[:30]), "C": Answer("Perhaps it is B or C.")}
        return kinds[letter_of(request.pictures) if request.pictures else "A"]

    with serving(failing) as server:
        assert run("eval", *asking(server, "evaluation.probes=[blind]")) == 0
    first = predictions_of(tmp_path / "run")
    kept = [p for p in first if p.task == "mcq"]
    dropped = [row for row in read_jsonl(tmp_path / "run" / "dropped.jsonl", SetAside) if "request" in row.reason]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 < len(kept) < 9
    assert metrics["test/parse_failure_count"] == len(kept) == metrics["test/n"]
    assert metrics["test/failed_requests"] == len(dropped) == 9 - len(kept) + 9  # the blind ones fail, too
    assert "test_blind/closed_qa_accuracy" in metrics
    assert "test_blind/accuracy_lost" not in metrics
    assert {row.reason for row in dropped} <= {"request_failed: http_500", "request_failed: not_a_completion"}
    said = capsys.readouterr().out
    assert f"{len(dropped)} requests got no reply" in said
    assert "the same command asks them again" in said


def test_a_kill_loses_no_reply_and_what_failed_is_asked_again(asking, tmp_path: Path, repository: Path):
    """The same command thrice: killed, then with a server that fails some questions, then with one that is mended."""
    broken = {"yes": True}

    def behave(request: Received, number: int) -> Answer:
        if broken["yes"] and "letter" in request.text and letter_of(request.pictures) == "A":
            return Answer("busy", 503)
        return replace(looking(request, number), stall_s=0.05)

    with serving(behave) as server:
        env = {**os.environ, "PYTHONPATH": str(repository), "WANDB_MODE": "disabled"}
        command = [sys.executable, "eval.py", *asking(server)]
        process = subprocess.Popen(command, cwd=repository, env=env, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while len(server.received) < 10 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        (journal,) = (tmp_path / "replies").glob("*.jsonl")
        delivered = journal.read_bytes().count(b"\n")
        assert delivered >= 3
        assert not (tmp_path / "run" / "metrics.json").exists()

        before = len(server.received)
        assert run("eval", *asking(server)) == 0
        failed = json.loads((tmp_path / "run" / "metrics.json").read_text())["test/failed_requests"]
        assert failed > 0
        replies = len(read_jsonl(journal, ChatReply))
        assert len(server.received) - before == replies - delivered + failed

        broken["yes"] = False
        before = len(server.received)
        assert run("eval", *asking(server)) == 0  # in the same folder, which was not done
        assert len(server.received) - before == failed
        assert run("eval", *asking(server)) == 0  # done already
        assert len(server.received) - before == failed
    assert "test/failed_requests" not in json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(predictions_of(tmp_path / "run")) == 18


@pytest.mark.parametrize("probe_only", [True, False])
def test_a_refusal_ends_in_one_line_and_one_request(probe_only: bool, asking, tmp_path: Path, capsys):
    def refusing(request: Received, number: int) -> Answer:
        return Answer(f"who is {KEY}?", 401) if probe_only or QUESTION not in request.text else looking(request, number)

    with serving(refusing) as server:
        assert run("eval", *asking(server, "student.concurrency=1")) == 2
    assert len(server.received) == (1 if probe_only else 3)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "401" in line
    assert "OPENAI_API_KEY" in line
    assert KEY not in line
    assert not (tmp_path / "run" / "predictions.jsonl").exists()


def test_a_server_that_is_down_for_every_question_is_not_scored(asking, tmp_path: Path, capsys):
    with serving(lambda r, n: looking(r, n) if QUESTION in r.text else Answer("busy", 500)) as server:
        assert run("eval", *asking(server)) == 2
    assert "no question got a reply: http_500" in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.json").exists()


def turned(request: Received, number: int) -> Answer:
    """A server that shows pictures last one first."""
    colours = ["red" if p[..., 0].mean() > p[..., 2].mean() else "blue" for p in request.pictures[::-1]]
    return Answer(f"{colours[0]} {colours[-1]}")


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (lambda request, number: Answer("Colored: red, then blue."), "does not see pictures in order"),
        (turned, "shows pictures in another order than they are sent in"),
        (lambda request, number: Answer("I see nothing."), "does not see pictures in order"),
    ],
)
def test_a_server_that_does_not_show_pictures_in_order_is_asked_nothing(behave, said, asking, capsys):
    with serving(behave) as server:
        assert run("eval", *asking(server)) == 2
    assert len(server.received) == 2
    line = capsys.readouterr().err
    assert said in line
    assert "student.vision=unchecked" in line


def test_films_probes_and_draws(asking, tmp_path: Path):
    """Frames as one film; under the blind probe there is none; each draw is a call of its own."""
    more = ["student.sending=video", "student.log_probs=false", "evaluation.probes=[blind]", "evaluation.samples=2"]
    with serving(looking) as server:
        assert run("eval", *asking(server, *more, "evaluation.temperature=0.5")) == 0
    films = [request for request in server.received[2:] if request.films]
    assert {len(film) for request in films for film in request.films} == {10}
    blind = [request for request in server.received[2:] if not request.pictures]
    assert len(blind) == len({request.text for request in blind}) < 18  # of clips that are asked the same, one is
    assert len(read_jsonl(tmp_path / "run" / "predictions_blind.jsonl", Prediction)) == 18
    temperatures = Counter(request.body["temperature"] for request in films)
    assert temperatures[0.5] == 2 * temperatures[0]
    assert len({request.body["seed"] for request in films if "seed" in request.body}) == 2
    assert not any("logprobs" in request.body for request in server.received)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test/agreement"] == 1
    assert "test_blind/accuracy_lost" in metrics


def test_options_have_scores_only_where_each_is_one_whole_token():
    def said(**first: float) -> ChatReply:
        return ChatReply(key="k", role="mcq", generator="g", text="A", first_token=first or None)

    assert option_scores(("A", "B"), said(A=-0.1, B=-3.0, C=-4.0)) == (-0.1, -3.0)
    assert option_scores(("A", "B"), said(A=-0.1, C=-4.0)) is None
    assert option_scores(("heavy rain", "fog"), said(heavy=-0.1, fog=-3.0)) is None
    assert option_scores(("A", "B"), said()) is None
    assert option_scores((), said(A=-0.1)) is None


@pytest.mark.parametrize(
    ("verb", "more", "said"),
    [
        ("eval", ["base_url=null"], "base_url=None: is missing"),
        ("eval", ["model=null"], "model=None: is missing"),
        ("eval", ["resolution=4x1"], "resolution: student=endpoint"),
        ("eval", ["adapter=lora"], "adapter: student=endpoint"),
        ("eval", ["student.sending=letters"], "student.sending=letters"),
        ("train", [], "student=endpoint: a served model is asked, not trained"),
        ("plan", [], "student=endpoint: a served model is asked, not trained"),
    ],
)
def test_what_cannot_work_is_refused(verb: str, more: list[str], said: str, tmp_path: Path, capsys):
    given = ["student=endpoint"] + (["base_url=http://127.0.0.1:9/v1", "model=m"] if verb == "eval" else [])
    place = [f"hydra.run.dir={tmp_path / 'run'}"] if verb != "plan" else []
    assert run(verb, *given, *more, *place) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
