"""Whether a student is the same elsewhere: in transformers' own class, and behind a server that may do it wrong."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import run
from student_samples import make_nvila_student, make_qwen3_student, make_sample, make_student
from teacher_server import Answer, Received, serving

from autodrive.exporting.parity import Pair, Parity, Said
from autodrive.exporting.stock_side import stock_side
from autodrive.exporting.verifying import answers_of, spoken
from autodrive.runs.folder import RunFiles
from autodrive.schema import Mode
from autodrive.students.student import Student, load_student
from autodrive.trees.sample import Branch, ClipSample, Turn, Video
from autodrive.video.decoder import DecodedFrames

FPS = 5.0


class Served:
    """The tiny student itself behind chat completions, with what a server may do to what it is sent."""

    def __init__(self, student: Student) -> None:
        self.student = student
        self.frames: Callable[[list[np.ndarray]], list[np.ndarray]] = lambda frames: frames
        self.system: Callable[[str], str] = lambda text: text
        self.counts, self.scores, self.tokenizes = True, True, True

    def tree(self, body: dict):
        """What the server reads of a request."""
        system, user = (message["content"] for message in body["messages"])
        text = next(part["text"] for part in user if part["type"] == "text")
        url = next(part["video_url"]["url"] for part in user if part["type"] == "video_url")
        files = url.partition(",")[2].split(",")
        frames = self.frames([np.asarray(Image.open(BytesIO(base64.b64decode(file)))) for file in files])
        shown = ()
        if frames:
            frames_TCHW = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
            shown = (Video(DecodedFrames(frames_TCHW, torch.arange(len(frames)).double() / FPS), FPS),)
        options = ("A", "B", "C") if "letter" in text else ()
        branch = Branch("asked", (Turn(text),), options)
        return self.student.processor.encode(ClipSample("clip", self.system(system), shown, (branch,)))

    def __call__(self, request: Received, number: int) -> Answer:
        tree = self.tree(request.body)
        ids = [*tree.prefix_ids, *tree.branches[0].ids]
        if "max_tokens" not in request.body:  # /tokenize
            placeholders = [token for place, token in enumerate(ids) if place == 0 or ids[place - 1] != token]
            found = json.dumps({"count": len(placeholders), "tokens": placeholders}).encode()
            return Answer(found) if self.tokenizes else Answer("no such page", 404)
        (answer,) = answers_of(self.student, [tree], {"asked": {"direct": request.body["max_tokens"]}})
        choice: dict = {"finish_reason": "stop", "message": {"content": spoken(self.student, answer)}}
        if answer.scores and self.scores:
            likely = [{"token": token, "logprob": score} for token, score in zip("ABC", answer.scores, strict=True)]
            choice["logprobs"] = {"content": [{"top_logprobs": likely}]}
        body: dict = {"choices": [choice]}
        if self.counts:
            body["usage"] = {"prompt_tokens": len(ids), "completion_tokens": 1}
        return Answer(json.dumps(body).encode())


@pytest.fixture(scope="module")
def student(smoke_run: Path) -> Student:
    return load_student(RunFiles(smoke_run).student, torch.float32)


@pytest.fixture
def compared(smoke_run: Path, world_dir: Path, tmp_path: Path) -> Callable[..., tuple[int, dict]]:
    def compare(*more: str) -> tuple[int, dict]:
        given = [f"ckpt={smoke_run}", f"paths.data_dir={world_dir}", "num_clips=2", f"out={tmp_path / 'parity.json'}"]
        code = run("parity", *given, *more)
        return code, json.loads((tmp_path / "parity.json").read_text())

    return compare


def against(server) -> list[str]:
    return [f"base_url={server.base_url}", "model=tiny", "served.server.max_retries=0"]


def test_the_same_student_behind_a_server_is_the_same(compared, student, capsys):
    with serving(Served(student)) as server:
        code, record = compared(*against(server))
    said = capsys.readouterr().out
    assert code == 0, said
    assert said.strip().endswith("same")
    assert record["same"]
    assert record["equal_replies"] == 1
    assert 0 <= record["largest_difference"] < 1e-3
    assert len({question["clip"] for question in record["questions"]}) == 2
    assert all(question["prompt_tokens"][0] == question["prompt_tokens"][1] for question in record["questions"])
    assert set(record["not_compared"]) == {"times of frames", "option scores"}  # options of several words have none


def drop(frames: list[np.ndarray]) -> list[np.ndarray]:
    return []


def fewer(frames: list[np.ndarray]) -> list[np.ndarray]:
    return frames[:-4]


def inverted(frames: list[np.ndarray]) -> list[np.ndarray]:
    return [255 - frame for frame in frames]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frames": drop}, "prompt tokens: as many are missing as the video has: it was left out"),
        ({"frames": fewer}, "2 groups of frames fewer: another frame count"),
        ({"system": lambda text: f"You are helpful. {text}"}, "more: another template or frame size"),
        ({"frames": inverted}, "option scores: differ by up to"),
        ({"frames": drop, "counts": False, "tokenizes": False}, "option scores: differ by up to"),
    ],
    ids=["dropped", "fewer", "template", "pixels", "dropped unsaid"],
)
def test_what_a_server_does_wrong_is_found(changes: dict, says: str, compared, student, capsys):
    served = Served(student)
    vars(served).update(changes)
    with serving(served) as server:
        code, record = compared(*against(server), "num_clips=1", "tolerance=0.0001")
    said = capsys.readouterr().out
    assert code == 1
    assert said.strip().endswith("different")
    assert not record["same"]
    assert any(says in line for line in record["differences"]), said
    if not served.counts:
        assert "the server counts none" in record["not_compared"]["prompt tokens"]
    if not served.tokenizes:
        assert "no tokenize endpoint" in record["not_compared"]["prompt ids"]


def test_a_server_that_does_not_reply_is_no_verdict(smoke_run: Path, world_dir: Path, student, capsys):
    with serving(lambda request, number: Answer("busy", 500)) as server:
        given = [f"ckpt={smoke_run}", f"paths.data_dir={world_dir}", "num_clips=1"]
        assert run("parity", *given, *against(server)) == 2
    assert "no reply (http_500" in capsys.readouterr().err


def stock(student: Student, samples: list[ClipSample], folder: Path):
    asked = [
        replace(
            s,
            branches=tuple(
                Branch(b.annotation_id, (*b.turns[:-1], Turn(b.turns[-1].prompt)), b.option_targets) for b in s.branches
            ),
        )
        for s in samples
    ]
    trees = [student.processor.encode(sample) for sample in asked]
    limits: dict[str, Mapping[Mode, int]] = {b.annotation_id: {b.mode: 3} for sample in asked for b in sample.branches}
    answers = answers_of(student, trees, limits)
    return answers, stock_side(student, folder, asked, answers, tolerance=1e-3)


def test_transformers_own_class_says_the_same_where_it_numbers_positions_as_the_student_does(tmp_path: Path):
    student = make_qwen3_student()
    answers, side = stock(student, [make_sample()], tmp_path)
    assert side.found == []
    for ours, theirs in zip(answers, side.said, strict=True):
        assert theirs.reply == spoken(student, ours)
        assert theirs.scores == pytest.approx(ours.scores, abs=1e-4)
    assert "no chat template" in side.not_compared["prompt ids"]
    assert "no video processor" in side.not_compared["frames"]


def test_what_transformers_does_not_have_is_not_said_to_be_the_same(tmp_path: Path):
    answers, side = stock(make_nvila_student(), [make_sample(height=56, width=56)], tmp_path)
    assert [theirs.scores for theirs in side.said] == [pytest.approx(ours.scores, abs=1e-4) for ours in answers]
    assert "transformers has no class for nvila students" in side.not_compared["what joins the towers"]


def test_positions_that_transformers_numbers_otherwise_are_named(tmp_path: Path):
    """A long clip of small frames: its time is above its rows and columns, where transformers lets the text begin."""
    fast = make_sample(num_frames=6, height=112, width=112, fps=30.0, seed=1)
    short, long = make_sample(num_frames=2, fps=2.0), make_sample(num_frames=12, height=28, width=28, fps=2.0)
    student = make_student()
    assert stock(student, [short, fast], tmp_path)[1].found == []
    (line,) = stock(student, [long], tmp_path)[1].found
    assert line.startswith("positions: transformers numbers a video's otherwise")


@pytest.mark.parametrize(("opening", "same"), [("<|im_start|>", True), ("<|im_start|> ", False)])
def test_the_checkpoint_s_own_template_is_held_against_the_prompt(opening: str, same: bool, tmp_path: Path):
    student = make_student()
    turn = "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}{% if c['type'] == "
    turn += "'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    student.processor.tokenizer.chat_template = (
        f"{{% for m in messages %}}{opening}{{{{ m['role'] }}}}\n{turn}{{% endif %}}<|im_end|>\n{{% endfor %}}"
        "{{ '<|im_start|>assistant\\n' }}"
    )
    answers, side = stock(student, [make_sample(num_frames=2)], tmp_path)
    pairs = []
    for ours, theirs in zip(answers, side.said, strict=True):
        ids = [*ours.tree.prefix_ids, *ours.branch.ids]
        here = Said("", None, None, tuple(t for i, t in enumerate(ids) if i == 0 or ids[i - 1] != t))
        pairs.append(Pair("c", "a", "direct", 10, 2, here, Said("", ids=theirs.ids)))
    assert (not Parity(pairs, 1e-3).differences()) == same


def test_against_transformers_from_the_command_line(compared, capsys):
    code, record = compared("against=transformers", "num_clips=1")
    said = capsys.readouterr().out
    assert code == (0 if record["same"] else 1)
    assert all(line.startswith(("positions", "option scores", "replies")) for line in record["differences"]), said
    assert "not compared: frames" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "base_url=None: is missing"),
        (["against=transformers", "base_url=http://a/v1"], "against=transformers asks no server"),
        (["against=vllm"], "against=vllm: choose one of server, transformers"),
    ],
)
def test_wrong_wishes_end_in_one_line(more: list[str], said: str, smoke_run: Path, capsys):
    assert run("parity", f"ckpt={smoke_run}", *more) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
