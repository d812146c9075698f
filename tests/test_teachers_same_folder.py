"""The same folder again, with another configuration, other clips, or after a pause: what is kept, asked and counted."""

import re
from pathlib import Path

import pytest
from annotation_samples import later, scenes
from running import run
from teacher_server import Answer, arguments, fluent, serving
from video_files import write_video

from autodrive.schema import Annotation, Clip, View, read_jsonl, write_jsonl

FPS = 10


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of 4 s, two of each class: windows of one video from 0 s, 1 s, …"""
    folder = tmp_path_factory.mktemp("manifest")
    video = write_video(folder / "drive.mp4", 9 * FPS, FPS)
    view = View(path=str(video), content_hash="00", native_fps=FPS, width=80, height=48)
    clips = [later(clip, view, start_s, camera="roof") for start_s, clip in enumerate(scenes(2))]
    write_jsonl(folder / "clips.jsonl", clips)
    return folder / "clips.jsonl"


def test_what_is_made_of_replies_follows_the_configuration(manifest: Path, tmp_path: Path):
    """Words that are no part of a prompt, and those of the tasks: the same folder must not keep what others gave."""

    def questions(stages: str, *changes: str) -> set[str]:
        given = arguments(server, manifest, tmp_path / stages[:4], f"teacher.stages=[{stages}]", *changes)
        assert run("annotate", *given) == 0
        return {a.question for a in read_jsonl(tmp_path / stages[:4] / "annotations.jsonl", Annotation)}

    with serving() as server:
        described = questions("paraphrase")
        assert questions("paraphrase", "teacher.roles.paraphrase.question='Tell me.'") == {"Tell me."} != described
        assert len(server.received) == 6  # the replies are the same
        questions("vlm_caption,trace_writer")
        chosen = "+teacher.roles.trace_writer.asks.question='Which of these?'"
        assert "Which of these?" in questions("vlm_caption,trace_writer", chosen)
        assert len(server.requests_of("trace_writer")) == 12
        questions("vlm_caption,trace_writer", chosen, 'prompts.tasks.mcq.letter_style="(A)"')
        asked = server.requests_of("trace_writer")
        assert [request.text.count("\n(A) ") for request in asked] == [0] * 12 + [1] * 6


def test_a_pause_keeps_what_is_done_behind_it(manifest: Path, tmp_path: Path):
    """What failed comes up again first; the pause then comes before what is done."""
    with serving(lambda request, number: Answer("busy", 503) if number < 2 else fluent(request)) as server:
        given = arguments(server, manifest, tmp_path, "teacher.stages=[vqa_writer]", "teacher.server.max_retries=0")
        given = [*(a for a in given if not a.startswith("concurrency")), "concurrency=1"]
        assert run("annotate", *given) == 0
        before = read_jsonl(tmp_path / "annotations.jsonl", Annotation)
        assert run("annotate", *given, "max_requests=1") == 0
    after = read_jsonl(tmp_path / "annotations.jsonl", Annotation)
    assert len({a.clip_id for a in before}) == 4
    assert len({a.clip_id for a in after}) == 5
    assert {a.id for a in before} < {a.id for a in after}


def test_a_dry_run_counts_no_reply_about_other_clips_or_drawn_otherwise(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """And no video has to be there."""
    monkeypatch.setenv("COLUMNS", "150")
    clips = read_jsonl(manifest, Clip)
    with serving() as server:
        assert run("annotate", *arguments(server, manifest, tmp_path)) == 0
    capsys.readouterr()
    gone = View(path=str(tmp_path / "gone.mp4"), content_hash="00", native_fps=FPS, width=80, height=48)
    others = [
        *clips[:2],
        *(c.model_copy(update={"end_s": c.end_s - 0.5, "id": f"{c.id}b", "views": {"road": gone}}) for c in clips[2:]),
    ]
    write_jsonl(tmp_path / "clips.jsonl", others)

    write_jsonl(tmp_path / "four.jsonl", others[2:])

    def forecast(role: str, *more: str, manifest: str = "clips", out: Path = tmp_path) -> list[float]:
        """Calls, those at hand, tokens sent and back, and the cost at one a token sent."""
        prices = ("teacher.prices.prompt=1e6", "teacher.prices.completion=0")
        with serving() as server:
            given = arguments(server, tmp_path / f"{manifest}.jsonl", out, "dry_run=true", *prices, *more)
            assert run("annotate", *given) == 0
        assert server.received == []
        (line,) = [line for line in capsys.readouterr().out.splitlines() if f" {role} " in line]
        return [float(cell.replace(",", "")) for cell in re.findall(r"(?<= )[\d.,]+(?= )", line)]

    for role in ("vqa_writer", "vlm_caption", "trace_writer"):
        calls, at_hand, tokens, _, cost = forecast(role)
        _, _, unsent, _, _ = forecast(role, manifest="four", out=tmp_path / "empty")
        assert (calls, at_hand, cost) == (6, 2, unsent)
        assert cost < tokens
    assert forecast("vqa_writer", "teacher.roles.vqa_writer.sampling.temperature=0.1")[1] == 0
    assert forecast("trace_writer", "teacher.roles.vlm_caption.shown.fps=1")[1] == 0
