"""From a manifest to files, with a server of the tests' own: what roles are shown, and what comes of faults."""

import json
import re
import signal
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

import pytest
from annotation_samples import later, scenes, shipped_setting
from running import run
from teacher_server import Answer, Received, arguments, fluent, right_letter, serving
from video_files import read_number, write_video

from autodrive.annotation.facts import facts_of
from autodrive.annotation.stages import Dropped
from autodrive.endpoints.reply_cache import ChatReply
from autodrive.schema import Annotation, Clip, View, read_jsonl, write_jsonl

KEY, POISON, NAME = "sk-ZEBRA-key-42", "ZEBRA-42", "OKAPI-17"
FPS = 10
ROLES = ("vlm_caption", "paraphrase", "vqa_writer", "short_qa", "trace_writer", "trace_repair", "reasoning_vqa")
FINAL = ("annotations.jsonl", "dropped.jsonl", "funnel.json", "work.jsonl", "annotate.json")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Six clips of 4 s, two of each class: windows from 0 s, 1 s, … of a video whose frames show their numbers."""
    video = write_video(tmp_path_factory.mktemp(f"collision_{NAME}") / f"crash_{NAME}.mp4", 9 * FPS, FPS)
    view = View(path=str(video), content_hash="00", native_fps=FPS, width=80, height=48)
    found = [later(clip, view, start_s, camera=POISON) for start_s, clip in enumerate(scenes(2))]
    names = [{"id": f"{clip.id}{NAME}", "source_video_id": f"{clip.source_video_id}{NAME}"} for clip in found]
    return [clip.model_copy(update=update) for clip, update in zip(found, names, strict=True)]


@pytest.fixture(scope="module")
def manifest(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("manifest") / "clips.jsonl"
    write_jsonl(path, clips)
    return path


def funnel(out: Path) -> dict[str, dict]:
    return {count["stage"]: count for count in json.loads((out / "funnel.json").read_text())}


def final_files(out: Path) -> dict[str, str]:
    texts = {name: (out / name).read_text() for name in FINAL}
    return {name: text.replace(str(out), "OUT").replace(urls(text), "URL") for name, text in texts.items()}


def urls(text: str) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", text)
    return found[0] if found else "none"


@pytest.fixture(scope="module")
def fluent_run(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Received], Path, int]:
    """What a well-behaved server was asked, the files of the run, and the most calls at once."""
    out = tmp_path_factory.mktemp("fluent")

    def patient(request: Received, number: int) -> Answer:
        time.sleep(0.02)
        return fluent(request)

    with serving(patient) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        assert run("annotate", *arguments(server, manifest, out)) == 0
    return server.received, out, server.most_at_once


def test_every_role_is_asked_about_every_clip_and_the_funnel_adds_up(fluent_run, clips: list[Clip]):
    received, out, most_at_once = fluent_run
    counts = funnel(out)
    asked = Counter(request.role for request in received)
    assert list(counts) == list(ROLES)
    for role in set(ROLES) - {"trace_repair"}:
        assert asked[role] == counts[role]["requests"] == counts[role]["replies"] == len(clips), role
    assert asked["vision_probe"] == 2
    assert most_at_once == 3
    assert counts["vqa_writer"]["candidates"] == 4 * len(clips)
    kept = read_jsonl(out / "annotations.jsonl", Annotation)
    dropped = read_jsonl(out / "dropped.jsonl", Dropped)
    assert sum(count["kept"] for count in counts.values()) == len(kept)
    assert sum(count["dropped"] for count in counts.values()) == sum(row.unit == "candidate" for row in dropped)
    assert all(re.fullmatch(r"openai:m@[0-9a-f]{12}", annotation.generator) for annotation in kept)
    assert len({a.generator for a in kept}) == len({count["stage"] for count in counts.values() if count["kept"]})


def test_the_caption_writer_sees_the_clip_s_frames_with_their_times_and_no_fact(fluent_run, clips: list[Clip]):
    received, _, _ = fluent_run
    starts_s = set()
    for request in (request for request in received if request.role == "vlm_caption"):
        times_s = [float(t) for t in re.findall(r"^([\d.]+) s:$", request.text, re.MULTILINE)]
        assert times_s == [k / 2 for k in range(8)]  # two frames a second, from the clip's start
        shown = [read_number(picture.transpose(2, 0, 1)) for picture in request.pictures]
        starts_s.add(shown[0] / FPS)
        assert shown == [shown[0] + round(time_s * FPS) for time_s in times_s]
        assert {picture.shape for picture in request.pictures} == {(48, 80, 3)}
        words = request.text.lower()
        facts = {v.replace("_", " ") for c in clips for v in c.metadata.values() if isinstance(v, str) and len(v) > 5}
        assert not any(fact in words for fact in facts)
    assert starts_s == {clip.start_s for clip in clips}
    assert len({request.text for request in received if request.role == "vlm_caption"}) == 1  # only pictures differ


def test_no_role_sees_what_is_not_for_it(fluent_run, clips: list[Clip]):
    received, out, _ = fluent_run
    for request in received:
        body = json.dumps(request.body)
        assert POISON not in body  # no fact of the window
        assert NAME not in body  # names of clips and files may tell the class
    for request in received:
        assert bool(request.pictures) == (request.role in ("vlm_caption", "vision_probe"))
        assert ("Right option" in request.text) == (request.role == "trace_repair")
        assert ("Reasoning to correct" in request.text) == (request.role == "trace_repair")
        assert ("What somebody saw: A car drives" in request.text) == (
            request.role in ("trace_writer", "reasoning_vqa")
        )
        assert ("Normal driving: no incident" in request.text) == (request.role in ("trace_writer", "trace_repair"))
    assert POISON not in "".join((out / name).read_text() for name in FINAL)


def test_a_poisoned_fact_is_shown_to_readers_of_the_facts_alone(clips: list[Clip], tmp_path: Path):
    """A fact of the window may be in the prompts of those who read the caption by rules, never in those who watch."""
    poisoned = [
        clip.model_copy(update={"metadata": {**clip.metadata, "weather": POISON, "scene": POISON}}) for clip in clips
    ]
    assert all(facts_of(clip).weather == POISON for clip in poisoned)
    write_jsonl(tmp_path / "clips.jsonl", poisoned)
    with serving() as server:
        assert run("annotate", *arguments(server, tmp_path / "clips.jsonl", tmp_path / "out")) == 0
    blind = [r for r in server.received if r.role in ("vlm_caption", "vision_probe")]
    assert len(blind) == len(clips) + 2
    assert not any(POISON in json.dumps(request.body) for request in blind)
    annotations = read_jsonl(tmp_path / "out" / "annotations.jsonl", Annotation)
    setting = shipped_setting()
    book, labels = setting.book, setting.labels
    prompts = [book[a.task].render(a.without_answer(), a.mode, labels).text for a in annotations]
    assert prompts
    assert not any(POISON in prompt for prompt in prompts)


def test_traces_are_kept_only_if_they_end_at_the_truth_and_others_are_mended(fluent_run, clips: list[Clip]):
    """The fluent model always chooses A; what was wrong is given to the mender with the right option."""
    received, out, _ = fluent_run
    label_of = {clip.id: clip.label for clip in clips}
    traces = [a for a in read_jsonl(out / "annotations.jsonl", Annotation) if a.task == "reasoning_mcq"]
    assert all(trace.answer == label_of[trace.clip_id] and trace.think for trace in traces)
    counts = funnel(out)
    first, second = counts["trace_writer"], counts["trace_repair"]
    assert second["requests"] == len(clips) - first["kept"] > 0
    assert first["kept"] + second["kept"] == len(traces)
    assert all(reason.startswith("candidate contradicts_truth") for reason in first["reasons"])
    for request in (request for request in received if request.role == "trace_repair"):
        assert re.search(r"Reasoning to correct: The road is clear \(\d+\)\.", request.text)
        assert right_letter(request) in "ABC"


def faulty(request: Received, number: int) -> Answer:
    """Every third reply is bad in a way of its own."""
    good = fluent(request)
    if number % 3 or request.role == "vision_probe":
        return good
    text = str(good.body)
    bad = (
        Answer("I am sorry, but I cannot help with that."),
        Answer(text[: len(text) // 2]),
        Answer(json.dumps({"answer": "B"})),
        Answer("busy", 503),
        Answer(text.replace("clear", "<think>clear</think>")),
        Answer(b'{"choices": []}'),
        Answer(text + text),
        Answer(reset=True),
    )
    return bad[number // 3 % len(bad)]


def test_faults_are_counted_by_item_and_nothing_invalid_passes(manifest: Path, clips: list[Clip], tmp_path: Path):
    with serving(faulty) as server:
        assert run("annotate", *arguments(server, manifest, tmp_path, "teacher.server.max_retries=0")) == 0
    counts = funnel(tmp_path)
    dropped = read_jsonl(tmp_path / "dropped.jsonl", Dropped)
    for count in counts.values():
        assert count["requests"] == count["replies"] + count["failed"]
        assert count["replies"] == count["parsed"] + count["unparsable"]
        assert count["candidates"] == count["kept"] + count["dropped"]
        rows = Counter(row.unit for row in dropped if row.stage == count["stage"])
        assert [rows[u] for u in ("request", "reply", "candidate")] == [
            count[k] for k in ("failed", "unparsable", "dropped")
        ]
    assert sum(c["failed"] for c in counts.values()) >= 3
    assert sum(c["unparsable"] for c in counts.values()) >= 3
    reasons = {row.reason for row in dropped}
    assert reasons & {"http_503", "not_a_completion", "connection"}
    assert reasons & {"no_json", "cut_off", "wrong_schema"}
    setting = shipped_setting()
    book, labels = setting.book, setting.labels
    for annotation in read_jsonl(tmp_path / "annotations.jsonl", Annotation):
        task = book[annotation.task]
        read = task.read(task.target(annotation, labels), annotation.without_answer(), annotation.mode, labels)
        assert read.value == annotation.answer


def test_what_got_no_reply_is_tried_again_by_the_same_command(fluent_run, manifest: Path, tmp_path: Path):
    _, unbroken, _ = fluent_run
    failing = {"on": True}

    def behave(request: Received, number: int) -> Answer:
        return Answer("busy", 503) if failing["on"] and request.role == "vqa_writer" and number % 2 else fluent(request)

    with serving(behave) as server:
        given = arguments(server, manifest, tmp_path, "teacher.server.max_retries=0")
        assert run("annotate", *given) == 0
        assert 0 < funnel(tmp_path)["vqa_writer"]["failed"] < 6
        failing["on"] = False
        before = len(server.received)
        failed = funnel(tmp_path)["vqa_writer"]["failed"]
        assert run("annotate", *given) == 0
    assert Counter(r.role for r in server.received[before:])["vqa_writer"] == failed
    assert (tmp_path / "annotations.jsonl").read_text() == (unbroken / "annotations.jsonl").read_text()


def test_a_run_that_pauses_goes_on_and_ends_with_the_same_files(
    fluent_run, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    received, unbroken, _ = fluent_run
    with serving() as server:
        given = arguments(server, manifest, tmp_path)
        sent = 0
        while sent < len(received):
            assert run("annotate", *given, "max_requests=25") == 0
            said = " ".join(capsys.readouterr().out.split())
            assert len(server.received) == min(sent + 25, len(received))
            assert ("paused: max_requests=25" in said) == (len(server.received) < len(received))
            sent = len(server.received)
    both = [
        {name: text for name, text in final_files(out).items() if name != "annotate.json"}
        for out in (tmp_path, unbroken)
    ]
    assert both[0] == both[1]


def test_kills_in_mid_run_lose_nothing(fluent_run, manifest: Path, tmp_path: Path):
    """Five times kill -9: each repeats at most what was under way, and the files are those of an unbroken run."""
    received, unbroken, _ = fluent_run
    kills, concurrency = 5, 3

    def slow(request: Received, number: int) -> Answer:
        time.sleep(0.03)
        return fluent(request)

    # A copy of this process has imported everything already; what it has on the disk is all that it leaves behind.
    copies = get_context("fork")
    with serving(slow) as server:
        given = arguments(server, manifest, tmp_path)
        for kill in range(kills):
            process = copies.Process(target=run, args=("annotate", *given))
            process.start()
            while len(server.received) < 7 * (kill + 1) and process.is_alive():
                time.sleep(0.002)
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL
        assert len(read_jsonl(tmp_path / "replies.jsonl", ChatReply)) < len(received)
        assert run("annotate", *given) == 0
    bodies = [[json.dumps(request.body, sort_keys=True) for request in r] for r in (received, server.received)]
    assert set(bodies[0]) == set(bodies[1])
    assert len(bodies[0]) < len(bodies[1]) <= len(bodies[0]) + kills * concurrency
    assert final_files(tmp_path) == final_files(unbroken)


def test_a_refused_key_costs_one_request_and_is_in_no_file(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda request, number: Answer(f"wrong key {request.headers['authorization']}", 401)) as server:
        code = run("annotate", *arguments(server, manifest, tmp_path, "teacher.stages=[vqa_writer]"))
    assert code == 2
    assert len(server.received) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert "401" in line
    assert "OPENAI_API_KEY" in line
    assert KEY not in captured.err + captured.out
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_server_that_leaves_pictures_out_is_found_out_before_it_describes(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def blind(request: Received, number: int) -> Answer:
        return Answer("Blue.") if request.role == "vision_probe" else fluent(request)

    with serving(blind) as server:
        assert run("annotate", *arguments(server, manifest, tmp_path)) == 2
        assert {request.role for request in server.received} == {"vision_probe"}
        assert "does not see pictures in order" in capsys.readouterr().err
        more = ["teacher.vision=unchecked", "teacher.stages=[vlm_caption]"]
        assert run("annotate", *arguments(server, manifest, tmp_path, *more)) == 0
    assert funnel(tmp_path)["vlm_caption"]["kept"] == 6


def test_a_dry_run_counts_and_sends_nothing(
    fluent_run, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    received, _, _ = fluent_run
    monkeypatch.setenv("COLUMNS", "150")
    with serving() as server:
        given = arguments(server, manifest, tmp_path / "out", "dry_run=true")
        assert run("annotate", *given, "teacher.prices.prompt=2", "teacher.prices.completion=10") == 0
    assert server.received == []
    assert not (tmp_path / "out").exists()
    rows = {
        cells[0]: cells
        for line in capsys.readouterr().out.splitlines()
        if len(cells := re.split(r"\s*[│┃]\s*", line.strip(" │┃"))) == 7
    }
    asked = Counter(request.role for request in received)
    for role in ROLES:
        assert int(rows[role][2]) >= asked[role] > 0, role
    prompt, back, cost = (float(cell.replace(",", "")) for cell in rows["all"][4:])
    assert cost == pytest.approx((2 * prompt + 10 * back) / 1e6, abs=0.011)
    sent = sum(len(request.text) for request in received if request.role == "vqa_writer") / 4
    assert float(rows["vqa_writer"][4].replace(",", "")) == pytest.approx(sent, rel=0.05)


def test_a_dry_run_knows_what_is_at_hand(
    fluent_run, manifest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    _, out, _ = fluent_run
    monkeypatch.setenv("COLUMNS", "150")
    before = {path: path.read_bytes() for path in out.iterdir()}
    with serving() as server:
        assert run("annotate", *arguments(server, manifest, out, "dry_run=true")) == 0
    assert re.search(r"vqa_writer\W+m\W+6\W+6\W", capsys.readouterr().out)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


CHANGES = {
    "model": "model=n",
    "temperature": "teacher.roles.vlm_caption.sampling.temperature=0.3",
    "words": "teacher.roles.vlm_caption.user='Describe {duration_s} s.'",
    "frames": "teacher.roles.vlm_caption.shown.fps=1",
}


def test_another_model_prompt_sampling_or_frames_are_asked_anew(fluent_run, manifest: Path, tmp_path: Path):
    _, out, _ = fluent_run
    replies = read_jsonl(out / "replies.jsonl", ChatReply)
    write_jsonl(tmp_path / "replies.jsonl", [r for r in replies if r.role in ("vlm_caption", "vision_probe")])
    with serving() as server:
        given = arguments(server, manifest, tmp_path, "teacher.stages=[vlm_caption]")
        assert run("annotate", *given) == 0
        assert server.received == []
        for number, (name, change) in enumerate(CHANGES.items(), 1):
            assert run("annotate", *given, change) == 0
            assert len(server.requests_of("vlm_caption")) == 6 * number, name
