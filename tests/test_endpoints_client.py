"""The client against a real socket: what is sent again, what stops everything, and what is never asked twice."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from teacher_server import Answer, Received, TeacherServer, completion, serving

from autodrive.endpoints.calls import ChatCall, Picture, Sampling
from autodrive.endpoints.client import CallFailed, ChatClient, RequestBudget, Server
from autodrive.endpoints.reply_cache import ChatReply, ReplyCache
from autodrive.endpoints.vision import VisionProbe
from autodrive.errors import InputError, Paused
from autodrive.schema import read_jsonl
from autodrive.teachers.writers import Caption

KEY = "sk-ZEBRA-key-42"


def picture(colour: str) -> Picture:
    file = BytesIO()
    Image.new("RGB", (28, 28), colour).save(file, "JPEG")
    return Picture(file.getvalue())


def a_call(text: str = "what happens?", **changes) -> ChatCall:
    call = ChatCall("vlm_caption", "abc", "You describe.", (text,), Sampling(max_tokens=9), Caption)
    return replace(call, **changes)


@pytest.fixture
def client_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ChatClient]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def make(server: TeacherServer | str, model: str = "m", budget: int | None = None, **settings) -> ChatClient:
        url = server if isinstance(server, str) else server.base_url
        how = Server(**({"timeout_s": 5.0, "max_retries": 2} | settings))
        return ChatClient(how, url, model, ReplyCache(tmp_path / "replies.jsonl"), RequestBudget(budget))

    return make


def in_turn(*answers: Answer) -> Callable[[Received, int], Answer]:
    """The first request gets the first answer, and so on; the last one is for all that follow."""
    return lambda request, number: answers[min(number, len(answers) - 1)]


GOOD = Answer('{"caption": "a road"}')


def test_a_reply_comes_with_what_was_counted_and_the_call_says_all_it_should(client_of):
    with serving(in_turn(GOOD)) as server:
        reply = client_of(server, extra={"top_k": 3}).ask(a_call(sampling=Sampling(9, 0.5, 0.9)))
    assert (reply.text, reply.finish_reason, reply.completion_tokens) == ('{"caption": "a road"}', "stop", 5)
    (request,) = server.received
    assert request.headers["authorization"] == f"Bearer {KEY}"
    sent = {key: request.body[key] for key in ("model", "max_tokens", "temperature", "top_p", "top_k")}
    assert sent == {"model": "m", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 3}
    assert request.body["messages"][1]["content"] == "what happens?"  # no list of parts for who reads text only
    assert request.body["response_format"]["json_schema"]["schema"]["required"] == ["caption"]


def test_a_server_that_asks_for_patience_gets_it(client_of):
    with serving(in_turn(Answer("slow down", 429, {"Retry-After": "1"}), GOOD)) as server:
        assert client_of(server).ask(a_call()).text == GOOD.body
    first, second = server.received
    assert second.time_s - first.time_s >= 1


@pytest.mark.parametrize(
    "bad",
    [
        Answer("oops", 500),
        Answer(reset=True),
        Answer(completion("long"), cut_at=20),
        Answer(completion("x"), stall_s=2),
    ],
    ids=["500", "reset", "cut", "stall"],
)
def test_what_may_pass_is_sent_again(bad: Answer, client_of):
    with serving(in_turn(bad, GOOD)) as server:
        assert client_of(server, timeout_s=0.5).ask(a_call()).text == GOOD.body
    assert len(server.received) == 2


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Answer("busy", 503), "http_503"),
        (Answer(f"unknown field, key {KEY}", 422), "http_422"),
        (Answer(reset=True), "connection"),
        (Answer(completion("x"), stall_s=1), "timeout"),
        (Answer(completion("half")[:30]), "not_a_completion"),
        (Answer(b'{"choices": []}'), "not_a_completion"),
        (Answer(b'{"object": "list", "data": []}'), "not_a_completion"),
        (Answer(b'{"choices": [{"message": {"content": 3}}]}'), "not_a_completion"),
        (Answer(b"<html>welcome</html>", headers={"Content-Type": "text/html"}), "not_a_completion"),
        (Answer(b'{"choices": [{"message": {"content": "\\ud83d"}}]}'), "not_a_completion"),
        (Answer(b""), "not_a_completion"),
    ],
)
def test_one_call_fails_with_its_reason_and_the_next_one_works(bad: Answer, reason: str, client_of):
    with serving(lambda request, number: bad if "bad" in request.text else GOOD) as server:
        client = client_of(server, max_retries=1, timeout_s=0.3)
        client.ask(a_call("good"))
        with pytest.raises(CallFailed) as caught:
            client.ask(a_call("bad"))
        assert client.ask(a_call("good, too")).text == GOOD.body
    assert caught.value.reason == reason
    assert KEY not in caught.value.detail
    assert len(read_jsonl(client.cache.path, ChatReply)) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_stops_everything_after_one_request(status: int, client_of, tmp_path: Path):
    refuse = Answer(json.dumps({"error": {"message": f"not with {KEY}"}}), status)
    with serving(in_turn(refuse)) as server, ThreadPoolExecutor(8) as pool:
        client = client_of(server)
        asked = [pool.submit(client.ask, a_call(f"clip {number}")) for number in range(8)]
        errors = [each.exception() for each in asked]
    assert len(server.received) == 1
    assert {type(error) for error in errors} == {InputError}
    (line,) = {str(error) for error in errors}
    assert f"{server.base_url} model=m: {status}" in line
    assert KEY not in line
    assert "\n" not in line
    assert not list(tmp_path.iterdir())


def test_a_call_that_is_too_much_fails_alone_where_others_like_it_had_replies(client_of):
    """Too many frames, or a scene that a service's filter does not let pass: no reason to stop asking about others."""
    too_long = Answer('{"error": {"message": "maximum context length"}}', 400)
    with serving(lambda request, number: too_long if "long" in request.text else GOOD) as server:
        client = client_of(server)
        client.ask(a_call("short"))
        for going_on in (client, client_of(server)):  # and the same command again
            with pytest.raises(CallFailed, match=r"http_400: .*maximum context length"):
                going_on.ask(a_call("long"))
            assert going_on.ask(a_call("short, too")).text == GOOD.body
        with pytest.raises(InputError, match="400"):  # such calls may all be too much
            client.ask(a_call("long", role="paraphrase"))


def test_a_server_that_is_not_there_stops_everything_at_once(client_of):
    with serving() as server:
        pass
    began_s = time.monotonic()
    with pytest.raises(InputError, match=r"cannot be reached .*start the server"):
        client_of(server, max_retries=5, budget=1).ask(a_call())
    assert time.monotonic() - began_s < 3  # the library's retries take 15


def test_a_server_behind_a_proxy_is_the_proxys_business(client_of, monkeypatch: pytest.MonkeyPatch):
    """Only the proxy can reach the address; whoever knocks there itself finds nobody."""
    with serving(in_turn(GOOD)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/v1"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert client_of("http://teacher.invalid:9/v1").ask(a_call()).text == GOOD.body


def test_replies_are_on_the_disk_and_never_asked_for_again(client_of):
    with serving(in_turn(GOOD)) as server:
        first = client_of(server).ask(a_call())
        again = client_of(server)
        assert again.delivered(a_call()) == again.ask(a_call()) == first
    assert len(server.received) == 1
    assert KEY not in again.cache.path.read_text()


def test_the_same_call_from_two_threads_is_one(client_of):
    with serving(lambda request, number: replace(GOOD, stall_s=0.2)) as server, ThreadPoolExecutor(4) as pool:
        client = client_of(server)
        client.ask(a_call("first"))
        replies = list(pool.map(client.ask, [a_call()] * 4))
    assert len(server.received) == 2
    assert len(set(replies)) == 1


CHANGES: dict[str, dict] = {
    "words": {"user": ("what happened?",)},
    "prompt": {"prompt_hash": "abd"},
    "system": {"system": "You describe well."},
    "role": {"role": "paraphrase"},
    "temperature": {"sampling": Sampling(max_tokens=9, temperature=0.1)},
    "top_p": {"sampling": Sampling(max_tokens=9, top_p=0.9)},
    "length": {"sampling": Sampling(max_tokens=10)},
    "a frame": {"user": ("what happens?", picture("red"))},
    "another frame": {"user": ("what happens?", picture("blue"))},
    "order of frames": {"user": ("what happens?", picture("blue"), picture("red"))},
    "form": {"reply_form": None},
}


def test_whatever_a_reply_depends_on_is_another_call(client_of):
    with serving(in_turn(GOOD)) as server:
        client = client_of(server)
        client.ask(a_call())
        for number, (name, change) in enumerate(CHANGES.items(), 2):
            client.ask(a_call(**change))
            assert len(server.received) == number, name
        client_of(server, model="n").ask(a_call())
        client_of(server, extra={"top_k": 3}).ask(a_call())
        assert len(server.received) == len(CHANGES) + 3
        client_of(server, max_retries=0, timeout_s=3).ask(a_call())  # how a reply is waited for changes nothing of it
        assert len(server.received) == len(CHANGES) + 3


def test_no_more_is_sent_than_may_be_and_what_is_at_hand_is_free(client_of):
    with serving(in_turn(GOOD)) as server:
        client = client_of(server, budget=2)
        client.ask(a_call("1"))
        client.ask(a_call("2"))
        client.ask(a_call("1"))
        with pytest.raises(Paused, match="max_requests=2"):
            client.ask(a_call("3"))
        client_of(server, budget=2).ask(a_call("3"))
    assert len(server.received) == 3


def test_the_probe_passes_who_sees_and_asks_once(client_of):
    with serving() as server:
        for _ in range(2):
            probe = VisionProbe(client_of(server), "vision=unchecked")
            probe.check()
            probe.check()
    assert [len(request.pictures) for request in server.received] == [4, 4]


@pytest.mark.parametrize("reply", ["Red", "I cannot see pictures.", "It may be red or blue.", ""])
def test_the_probe_stops_who_does_not_see(reply: str, client_of):
    with (
        serving(lambda request, number: Answer(reply)) as server,
        pytest.raises(InputError, match=r"does not see pictures in order .*vision=unchecked") as caught,
    ):
        VisionProbe(client_of(server), "vision=unchecked").check()
    assert "\n" not in str(caught.value)
    with serving() as mended:
        VisionProbe(client_of(mended), "vision=unchecked").check()  # under the same model's name: it is asked again


def test_a_damaged_file_of_replies_is_named(tmp_path: Path):
    path = tmp_path / "replies.jsonl"
    path.write_text('{"key": 3}\n')
    with pytest.raises(InputError, match=r"replies.jsonl:1: not a model's reply"):
        ReplyCache(path)


def test_a_key_that_cannot_be_sent(client_of, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "schlüssel")
    with pytest.raises(InputError, match="OPENAI_API_KEY: holds letters that no key has") as caught:
        client_of("http://127.0.0.1:9/v1")
    assert "schl" not in str(caught.value)
