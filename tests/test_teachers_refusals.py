"""Command lines of a teacher that cannot work: refused with one line, before anything is sent or written."""

from pathlib import Path

import pytest
from annotation_samples import later, scenes
from running import run
from teacher_server import arguments, serving
from video_files import write_video

from autodrive.schema import View, write_jsonl


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifest")
    video = write_video(folder / "drive.mp4", 50, 10)
    view = View(path=str(video), content_hash="00", native_fps=10, width=80, height=48)
    write_jsonl(folder / "clips.jsonl", [later(clip, view, 0, camera="roof") for clip in scenes(1)])
    return folder / "clips.jsonl"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["base_url=null"], ["base_url=None: is missing", "base_url=<address"]),
        (["model=null"], ["model=None: is missing"]),
        (["base_url=localhost:8000"], ["base_url=localhost:8000: must begin with http"]),
        (["base_url='http://me:secret@host/v1'"], ["must hold no name or password"]),
        (["base_url=http://localhost:80x0/v1"], ["base_url=http://localhost:80x0/v1: must name a host"]),
        (["base_url=http:///v1"], ["base_url=http:///v1: must name a host"]),
        (["executor=processes"], ["executor=processes: ", "executor=threads"]),
        (["teacher.stages=[vqa]"], ["teacher.stages: no role 'vqa'", "vqa_writer"]),
        (["teacher.stages=[trace_writer]"], ["trace_writer reads what vlm_caption writes", "{vlm_caption}"]),
        (["teacher.stages=[vlm_caption,trace_repair]"], ["trace_repair reads what trace_writer writes"]),
        (
            ["teacher.roles.trace_writer.user='{label}'"],
            ["teacher.roles.trace_writer.user: {label} is not for this role"],
        ),
        (
            ["teacher.roles.vlm_caption.user='{rule_caption}'"],
            ["{rule_caption} is not for this role, which sees duration_s"],
        ),
        (["teacher.roles.vqa_writer.user='{'"], ["teacher.roles.vqa_writer.user", "brace"]),
        (["teacher.vision=perhaps"], ["teacher.vision=perhaps"]),
        (["max_requests=0"], ["max_requests=0: must be greater than or equal to 1"]),
        (["teacher.server.max_retries=-1"], ["teacher.server.max_retries=-1"]),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    more: list[str], said: list[str], manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with serving() as server:
        assert run("annotate", *arguments(server, manifest, tmp_path / "out", *more)) == 2
    assert server.received == []
    assert not (tmp_path / "out").exists()
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(part in line for part in said), line
