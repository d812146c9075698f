"""An OpenAI-compatible server of the tests' own, on loopback: it answers as told, and misbehaves on request."""

import base64
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Answer:
    """What the server does with one request.

    Attributes:
        body: What it sends; a text is sent as the content of a well-formed completion.
        status: HTTP status.
        headers: Further headers.
        stall_s: Seconds before it says anything.
        cut_at: Bytes after which it hangs up, though it has promised all of them.
        reset: Whether it resets the connection and says nothing.
    """

    body: str | bytes = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    stall_s: float = 0
    cut_at: int | None = None
    reset: bool = False


@dataclass(frozen=True)
class Received:
    """One request as it came in."""

    body: dict[str, Any]
    headers: dict[str, str]
    time_s: float

    @property
    def role(self) -> str:
        """The role that asks, as the schema of its reply is called; the vision probe sends none."""
        return self.body.get("response_format", {}).get("json_schema", {}).get("name", "vision_probe")

    @property
    def parts(self) -> list[dict[str, Any]]:
        content = self.body["messages"][1]["content"]
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    @property
    def text(self) -> str:
        """All words, of both messages."""
        words = [self.body["messages"][0]["content"], *(p["text"] for p in self.parts if p["type"] == "text")]
        return "\n".join(words)

    @property
    def pictures(self) -> list[np.ndarray]:
        """Attached pictures, those of films included, decoded: (height, width, 3) uint8."""
        urls = [part["image_url"]["url"] for part in self.parts if part["type"] == "image_url"]
        assert all(url.startswith(("data:image/jpeg;base64,", "data:image/png;base64,")) for url in urls)
        files = [url.partition(",")[2] for url in urls] + [file for film in self.films for file in film]
        return [np.asarray(Image.open(BytesIO(base64.b64decode(file)))) for file in files]

    @property
    def films(self) -> list[list[str]]:
        """Attached films, each as its frames' files in base64."""
        urls = [part["video_url"]["url"] for part in self.parts if part["type"] == "video_url"]
        assert all(url.startswith("data:video/jpeg;base64,") for url in urls)
        return [url.partition(",")[2].split(",") for url in urls]


def completion(text: str, finish_reason: str = "stop") -> bytes:
    """A chat completion with this content."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    return json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def fluent(request: Received) -> Answer:
    """A model that sees, and always replies in the form that is asked for; the same request gets the same reply."""
    if request.role == "vision_probe":
        named = ["Red" if p[..., 0].mean() > p[..., 2].mean() else "Blue" for p in request.pictures]
        return Answer(f"{named[0]}, {named[-1]}.")
    about = f"{sum(map(ord, request.text)) % 997}"
    fields: dict[str, dict[str, Any]] = {
        "vlm_caption": {"caption": f"A car drives along a road, seen {len(request.pictures)} times ({about})."},
        "paraphrase": {"paraphrases": [f"A drive, told once ({about}).", f"A drive, told again ({about})."]},
        "vqa_writer": {
            "pairs": [
                {"aspect": aspect, "question": f"What is the {aspect} matter?", "answer": f"It is number {about}."}
                for aspect in ("spatial", "environmental", "causal", "blame")
            ]
        },
        "short_qa": {"pairs": [{"question": "What is the number?", "answer": about}]},
        "trace_writer": {"reasoning": f"The road is clear ({about}).", "answer": "A"},
        "trace_repair": {"reasoning": f"The road is clear after all ({about}).", "answer": right_letter(request)},
        "reasoning_vqa": {
            "triplets": [{"question": "Why so?", "reasoning": f"It follows ({about}).", "answer": f"By {about}."}]
        },
    }
    return Answer(json.dumps(fields[request.role]))


def right_letter(request: Received) -> str:
    """The letter of the option that a prompt names as the right one."""
    right = next((line.partition(": ")[2] for line in request.text.splitlines() if line.startswith("Right option")), "")
    return next((line[0] for line in request.text.splitlines() if right and line[1:] == f". {right}"), "A")


Behaviour = Callable[[Received, int], Answer]
"""What is done with a request, and the how-manieth it is, from 0."""


class TeacherServer:
    """The server; `received` holds what came in so far."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.received: list[Received] = []
        self.at_once, self.most_at_once = 0, 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request = Received(body, {k.lower(): v for k, v in self.headers.items()}, time.monotonic())
                with outer.lock:
                    number = len(outer.received)
                    outer.received.append(request)
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                try:
                    self.reply(outer.behave(request, number))
                except OSError:
                    pass  # the client gave up, or was killed
                finally:
                    with outer.lock:
                        outer.at_once -= 1

            def reply(self, answer: Answer) -> None:
                time.sleep(answer.stall_s)
                if answer.reset:
                    linger = struct.pack("ii", 1, 0)  # close with a reset
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.close_connection = True
                    self.connection.close()
                    return
                body = completion(answer.body) if isinstance(answer.body, str) and answer.status == 200 else answer.body
                body = body.encode() if isinstance(body, str) else body
                self.send_response(answer.status)
                headers = {"Content-Type": "application/json", "Content-Length": str(len(body))} | answer.headers
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body[: answer.cut_at])
                self.close_connection = answer.cut_at is not None

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    def requests_of(self, role: str) -> list[Received]:
        return [request for request in self.received if request.role == role]


@contextmanager
def serving(behave: Behaviour | None = None) -> Iterator[TeacherServer]:
    """A server that behaves as told; by default as a fluent model."""
    server = TeacherServer(behave or (lambda request, number: fluent(request)))
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()


def arguments(server: TeacherServer, manifest: Path, out: Path, *more: str) -> list[str]:
    """The command line that asks this server about the clips of a manifest, in all roles."""
    given = ["teacher=openai_compatible", f"base_url={server.base_url}", "model=m", f"clips={manifest}", f"out={out}"]
    return [*given, "concurrency=3", "num_shown=0", "teacher.server.timeout_s=5", "teacher.server.max_retries=1", *more]
