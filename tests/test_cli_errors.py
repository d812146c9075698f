"""Wrong configuration and wrong input: exit code 2 and one line that names it and the fix, before any training."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from running import run

from autodrive.datasets.manifest import load_clips

Records = list[dict]


@pytest.fixture(scope="module")
def records(manifest: Path) -> Records:
    clips = [json.loads(clip.model_dump_json()) for clip in load_clips(manifest)]
    for clip in clips:
        clip["sensors"] = clip["truth"] = None
    return clips


def the_one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    assert "train/loss" not in captured.out
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fsp=15"], ["'fsp'", "check the spelling"]),
        (["mixture.parts.caption={per_visit:1}"], ["'caption'", "write +mixture.parts.caption=<value> to add it"]),
        (["annotations.mcq.task=quiz"], ["annotations.mcq.task=quiz: no such task", "mcq, closed_qa, caption"]),
        (["annotations=rules", "~annotations.mcq", "~annotations.closed_qa"], ["annotations: there is no source"]),
        (["optimizer.betas=[2,3]"], ["optimizer.betas=", "Invalid beta"]),
        (["+trainer.gradient_clip_val=1"], ["trainer.gradient_clip_val=1: ", "give method.max_grad_norm"]),
        (["trainer.accelerator=gpu"], ["trainer: ", "gpu"]),
        (["dataset.num_trian_scenes=3"], ["dataset.num_trian_scenes", "check the spelling"]),
        (["+fsp=15"], ["+fsp", "check the spelling"]),
        (["mixture=balancd"], ["mixture/balancd", "balanced best mcq"]),
        (["student=qwen"], ["student/qwen", "tiny_qwen2_5_vl"]),
        (["logger=null"], ["logger=null: takes the name of a file in conf/logger (", "none"]),
        (["-m", "scale=tiny,1"], ["scale=tiny,1: takes the name of a file in conf/scale (paper, tiny)"]),
        (["fps=abc"], ["fps=abc", "could not be converted to Float"]),
        (["num_steps=1.5"], ["num_steps=1.5", "Integer"]),
        (["resolution=nonsense"], ["resolution=nonsense", "resolution=128x32"]),
        (["resolution=4x8"], ["resolution=4x8", "A >= B"]),
        (["student=qwen2_5_vl_7b"], ["student=qwen2_5_vl_7b is full size", "add scale=paper"]),
        (["optimizer.lr=abc"], ["optimizer.lr=abc: must be"]),
        (["+optimizer.nesterov=true"], ["optimizer.nesterov: there is no such key", "weight_decay"]),
        (["schedule.warmup_fraction=abc"], ["schedule.warmup_fraction=abc: must be"]),
        (["clips=nowhere.jsonl"], ["nowhere.jsonl: no such manifest", "autodrive.prepare"]),
        (["source=/videos"], ["source=/videos: this data set reads no folder", "dataset=video_folder"]),
        (["dataset=video_folder", "source=/a", "clips=b.jsonl"], ["clips=b.jsonl is used in its place"]),
        (["table=autodrive/table33"], ["autodrive/table33"]),
        (["dataset=video_folder"], ["source is not set", "source=<folder>"]),
        (["dataset=nexar", "source=/nowhere"], ["source=/nowhere: no such folder"]),
        (["annotations.closed_qa.keys=[moon]"], ["closed questions: unknown moon", "weather"]),
        (["resume=nowhere"], ["nowhere: not a run folder", "train.py wrote"]),
        (["clips=a=b.jsonl"], ["""'clips="a=b.jsonl"'"""]),
        (["clips=my folder/a=b.jsonl"], ["""'clips="my folder/a=b.jsonl"'"""]),
        (["clips=my", "folder/a.jsonl"], ["""'clips="my folder/a.jsonl"'"""]),
        (["clips=(a).jsonl"], ["""'clips="(a).jsonl"'"""]),
        (["clips=a,b.jsonl"], ["clips=a,b.jsonl", "quote the value"]),
        (["clips=m\u00fcll \U0001f697.jsonl"], ["""'clips="m\u00fcll \U0001f697.jsonl"'"""]),
        (["-m", "fps=1,15", "clips=a=b.jsonl"], ["""'clips="a=b.jsonl"'"""]),
        (["fps"], ["fps=<value>"]),
    ],
)
def test_wrong_arguments_of_train(
    arguments: list[str], said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folders = [f"paths.data_dir={tmp_path}", f"hydra.run.dir={tmp_path}", f"hydra.sweep.dir={tmp_path}"]
    assert run("train", *arguments, *folders) == 2
    line = the_one_line(capsys)
    assert all(part in line for part in said), line


@pytest.mark.parametrize("name", ["m\u00fcll.mp4", "\U0001f697.mp4", """it's "q".mp4""", 'a\\"=', "=\\", "(a) [b].mp4"])
def test_the_quoting_that_is_suggested_is_read_back(name: str, capsys: pytest.CaptureFixture[str]):
    assert run("predict", f"video={name}", "ckpt=a") == 2
    line = the_one_line(capsys)
    assert "Exception" not in line
    (suggested,) = shlex.split(line.rpartition("is quoted twice: ")[2])
    override = OverridesParser.create().parse_override(suggested)
    assert (override.key_or_group, override.value()) == ("video", name)


@pytest.mark.parametrize("verb", ["train", "eval", "autodrive.predict"])
def test_a_wrong_value_is_refused_before_seconds_of_imports(verb: str, smoke_run: Path, repository: Path):
    given = {"train": ["fps=0"], "eval": ["ckpt=null", "fps=0"]}.get(
        verb, ["video=a.mp4", f"ckpt={smoke_run}", "fps=0"]
    )
    lines = [f"import sys, {verb} as verb", f"sys.argv = ['verb.py', *{given}]", "try: verb.main()"]
    lines += ["except SystemExit as ended: print(ended.code, 'torch' in sys.modules)"]
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, cwd=repository)
    assert ended.stdout.strip() == "2 False", ended.stderr
    assert ended.stderr.startswith("error: fps=0.0: must be greater than 0")


@pytest.mark.parametrize("verb", ["eval", "predict"])
@pytest.mark.parametrize(("ckpt", "said"), [("nowhere", "nowhere: not a run folder"), (None, "ckpt= is missing")])
def test_a_checkpoint_that_is_none(
    verb: str, ckpt: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["video=a.mp4"] if verb == "predict" else []
    arguments += [f"ckpt={ckpt}"] if ckpt else []
    assert run(verb, *arguments, f"hydra.run.dir={tmp_path}") == 2
    assert said in the_one_line(capsys)


def without(key: str, value: str) -> Callable[[Records], Records]:
    return lambda clips: [clip for clip in clips if clip[key] != value]


def missing_video(clips: Records) -> Records:
    gone = {"road": clips[1]["views"]["road"] | {"path": "gone.mp4"}}
    return [clip | {"views": gone} if i == 1 else clip for i, clip in enumerate(clips)]


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        (lambda clips: [*clips[:1], "{oops"], [], ["clips.jsonl:2: not a valid Clip", "fix that line"]),
        (lambda clips: [clips[0] | {"fsp": 3}], [], ["clips.jsonl:1: not a valid Clip: fsp"]),
        (lambda clips: [clips[0] | {"end_s": 0}], [], ["clips.jsonl:1", "not after start_s"]),
        (lambda clips: [], [], ["holds no clips"]),
        (without("split", "test"), [], ["the test split is empty"]),
        (without("split", "val"), [], ["the val split is empty"]),
        (without("label", "collision"), [], ["no training clips of class collision", "labels=event2"]),
        (missing_video, [], ["1 of 27 videos missing", "gone.mp4"]),
        (lambda clips: [*clips, clips[0]], [], ["occurs twice"]),
        (lambda clips: clips, ["fps=60"], ["fps=60: no clip has that frame rate", "fps=31.5"]),
        (lambda clips: clips, ["mixture=unbalanced", "labels=event2"], ["mixture.balance.natural_ratio names"]),
    ],
)
def test_wrong_manifests(
    change: Callable[[Records], list],
    arguments: list[str],
    said: list[str],
    records: Records,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    lines = [line if isinstance(line, str) else json.dumps(line) for line in change(records)]
    manifest = tmp_path / "my clips=all" / "clips.jsonl"
    manifest.parent.mkdir()
    manifest.write_text("\n".join(lines))
    code = run("train", f'clips="{manifest}"', "experiment=smoke", *arguments, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 2
    line = the_one_line(capsys)
    assert all(part in line for part in said), line
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_missing_weights(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    here = ["student=qwen2_5_vl_7b", "scale=paper", "fps=15", f"clips={manifest}", "mixture=uniform"]
    here += [f"student.checkpoint={tmp_path}", f"hydra.run.dir={tmp_path / 'run'}"]
    assert run("train", *here) == 2
    line = the_one_line(capsys)
    assert f"student.checkpoint={tmp_path}: cannot be read" in line
    assert "config.json" in line


def test_weights_that_were_never_downloaded(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    here = ["ckpt=null", "student=qwen2_5_vl_7b", "scale=paper", "fps=15", f"clips={manifest}"]
    assert run("eval", *here, f"hydra.run.dir={tmp_path}") == 2
    assert "connect to the hub once" in the_one_line(capsys)


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("train.py", ["fsp=15"], "'fsp'"),
        ("train.py", ["resolution=nonsense"], "resolution=128x32"),
    ],
)
def test_exit_code_and_line_of_a_real_process(
    script: str, arguments: list[str], said: str, repository: Path, tmp_path: Path
):
    command = [sys.executable, str(repository / script), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 2
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert said in line
