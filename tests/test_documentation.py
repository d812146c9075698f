"""What the documents say is so: commands, links, tables of constants, the worked example, the picture."""

import ast
import doctest
import re
import runpy
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from run_samples import reader, write_run
from running import composed, prepare_settings, run
from video_files import write_video

from autodrive.annotation.rules import ClassQuestion, ClosedQuestions
from autodrive.config import register
from autodrive.datasets.manifest import load_clips
from autodrive.datasets.preparing import prepare
from autodrive.datasets.synthetic import SyntheticDataset
from autodrive.mixture.clip_batches import BranchWriter
from autodrive.schema import Clip, SetAside, read_jsonl
from autodrive.students.resolution import Resolution
from autodrive.world import physics

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
HOW_TOS = ("CONTRIBUTING.md", "docs/teachers.md")
TOOLS = {"pip", "pytest", "ruff", "pyright", "pre-commit", ".ci/run", "conda", "wandb"}


@dataclass(frozen=True)
class Command:
    """One command of a document, split into words."""

    where: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.where} {' '.join(self.words)}"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^[ ]*```{language}\n(.*?)^[ ]*```$", text, re.MULTILINE | re.DOTALL)


def commands() -> Iterator[Command]:
    """Every command in the bash blocks of the documents, and every inline one that starts with python."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
        lines += re.findall(r"`(python [^`]+)`", text)
        for line in lines:
            for part in " ".join(shlex.split(line, comments=True)).split(" && "):
                if part:
                    yield Command(path.name, tuple(part.split()))


COMMANDS = list({command.words: command for command in commands()}.values())
PYTHON_COMMANDS = [command for command in COMMANDS if command.words[0] == "python"]


def test_the_readme_opens_with_the_two_commands_that_ci_runs():
    readme = (REPOSITORY / "README.md").read_text()
    first = blocks(readme, "bash")[0].splitlines()
    assert first == ["pip install -e . && python train.py", 'pip install -e ".[dev]" && pytest']
    script = (REPOSITORY / ".ci" / "run").read_text()
    pattern = re.search(r"grep -E '([^']+)' README\.md", script)
    assert pattern, ".ci/run takes its commands from README.md"
    assert [line for line in readme.splitlines() if re.match(pattern[1], line)] == first
    assert subprocess.run(["bash", "-n", str(REPOSITORY / ".ci" / "run")]).returncode == 0


def test_the_first_screen_is_a_sentence_a_picture_two_commands_and_a_table():
    lines = [line for line in (REPOSITORY / "README.md").read_text().splitlines() if line.strip()]
    assert lines[0].startswith("# ")
    assert lines[1].endswith(".")
    assert lines[2].startswith("![")
    assert lines[3] == "```bash"
    assert any(line.startswith("|") for line in lines[7:12])


def test_other_commands_use_known_tools():
    assert {command.words[0] for command in COMMANDS} - {"python"} <= TOOLS


@pytest.mark.parametrize("command", PYTHON_COMMANDS, ids=str)
def test_commands_of_the_documents_compose(command: Command):
    words = list(command.words[1:])
    if words[0] == "-m":
        config_name = words[1].removeprefix("autodrive.")
        assert (REPOSITORY / "autodrive" / f"{config_name}.py").is_file()
        words = words[2:]
    else:
        assert (REPOSITORY / words[0]).is_file()
        config_name, words = Path(words[0]).stem, words[1:]
    if not (REPOSITORY / "conf" / f"{config_name}.yaml").is_file():
        return  # a plain script without a configuration
    overrides = [re.sub(r"<[^>]*>|…", "placeholder", word) for word in words if "=" in word]
    register()
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        for overrides_of_job in jobs(overrides):
            config = compose(config_name, overrides_of_job)
            assert config


def jobs(overrides: list[str]) -> list[list[str]]:
    """One list of overrides for each value of a sweep, the other sweeps at their first value."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    choices = [
        [f"{o.key_or_group}={value}" for value in o.sweep_string_iterator()] if o.is_sweep_override() else [text]
        for o, text in zip(parsed, overrides, strict=True)
    ]
    longest = max((len(values) for values in choices), default=1)
    return [[values[min(i, len(values) - 1)] for values in choices] for i in range(longest)]


def headings(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_internal_links_resolve(path: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in headings(linked), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_named_in_documents_exist(path: Path):
    for name in re.findall(r"`((?:autodrive|conf|docs|tests|experiments|notebooks)/[^`*…<>]*)`", path.read_text()):
        assert (REPOSITORY / name).exists(), f"{path.name} names {name}"


def test_thresholds_of_the_world_are_the_documented_ones():
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| ([^|]+) \|", (REPOSITORY / "docs" / "world.md").read_text(), re.MULTILINE)
    assert len(rows) >= 5
    assert {name: ast.literal_eval(value.strip()) for name, value in rows} == {
        name: getattr(physics, name) for name, _ in rows
    }


def configured(name: str):
    return instantiate(OmegaConf.load(REPOSITORY / "conf" / f"{name}.yaml"))


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A rendered collision and an untrained student, as the worked example in CONTRIBUTING.md assumes them."""
    folder = tmp_path_factory.mktemp("example")
    world = SyntheticDataset(root=str(folder), num_train_scenes=1, num_val_scenes=0, num_test_scenes=0, num_workers=1)
    prepare(world, folder / "clips", prepare_settings(4))
    clips = load_clips(folder / "clips" / "clips.jsonl")
    clip = next(clip for clip in clips if clip.label == "collision")
    labels, book = configured("labels/event3"), instantiate(composed("train").prompts)
    annotations = list(ClassQuestion("mcq").annotations([clip], labels, 0))
    annotations += ClosedQuestions("closed_qa", ["weather", "when"]).annotations([clip], labels, 0)
    taught = [BranchWriter(book, labels).teach(annotation) for annotation in annotations]
    texts = [book.system, *(t for b in taught for turn in b.turns for t in (turn.prompt, str(turn.target)))]
    student = configured("student/tiny_qwen2_5_vl").build(texts, Resolution.parse("8x4"), 0)
    return {
        "folder": folder,
        "clip": clip,
        "labels": labels,
        "book": book,
        "student": student.eval(),
        "decoder": configured("decoder/pyav"),
        **published_table_example(folder),
    }


def published_table_example(folder: Path) -> dict[str, object]:
    """The file that CONTRIBUTING.md shows, and a sweep to stand beside it."""
    (shown,) = [b for b in blocks((REPOSITORY / "CONTRIBUTING.md").read_text(), "yaml") if "test_set:" in b]
    (folder / "published").mkdir()
    (folder / "published" / "another.yaml").write_text(shown, encoding="utf-8")
    for fps, skill in ((2, 0.5), (10, 0.9)):
        for seed in (0, 1):
            write_run(folder / "sweep" / f"{fps}-{seed}", [f"fps={fps}", f"seed={seed}"], reader(skill, seed))
    return {"folder_of_that_file": folder / "published", "sweep": folder / "sweep"}


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the how-tos add: their files, as if they lay where their first line says."""
    text = "".join((REPOSITORY / name).read_text(encoding="utf-8") for name in HOW_TOS)
    for content in blocks(text, "yaml"):
        path = tmp_path / re.match(r"# (\S+)", content)[1]  # type: ignore[index]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for content in blocks(text, "python"):
        if first := re.match(r"# (autodrive/\S+)\.py\n", content):
            module = types.ModuleType(first[1].replace("/", "."))
            monkeypatch.setitem(sys.modules, module.__name__, module)
            exec(content, module.__dict__)
    names = ",".join(path.stem for folder in (REPOSITORY, tmp_path) for path in (folder / "conf" / "tasks").iterdir())
    where = (f"hydra.searchpath=[file://{tmp_path}/conf]", f"tasks@prompts.tasks=[{names}]")
    asking = ("teacher=openai_compatible", "base_url=http://localhost/v1", "model=m", "clips=c", "out=o")
    return {
        "composed": lambda *overrides: composed("train", [*where, *overrides]),
        "annotate_config": lambda *overrides: composed("annotate", [*where[:1], *asking, *overrides]),
        "instantiate": instantiate,
        "book": instantiate(composed("train", where).prompts),
    }


def test_every_how_to_fits_on_a_page():
    section = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## How to add …")[1].split("\n## ")[0]
    examples = [block for language in ("python", "yaml") for block in blocks(section, language)]
    assert len(examples) > 6
    for example in examples:
        assert sum(bool(line.strip()) for line in example.splitlines()) < 60, example.splitlines()[0]


@pytest.mark.parametrize("document", [*HOW_TOS, "docs/clip_trees.md"])
def test_worked_examples_are_true(document: str, example: dict[str, object], added: dict[str, object]):
    text = "\n".join(blocks((REPOSITORY / document).read_text(encoding="utf-8"), "python"))
    parsed = doctest.DocTestParser().get_doctest(text, example | added, document, document, 0)
    assert len(parsed.examples) > 10
    report: list[str] = []
    outcome = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(parsed, out=report.append)
    assert outcome.failed == 0, "".join(report)


def test_documented_files_are_what_the_world_writes(example: dict[str, object]):
    text = (REPOSITORY / "docs" / "world.md").read_text()
    section = text.split("## The sensors and the truth beside each video")[1].split("\n## ")[0]
    clip = cast(Clip, example["clip"])
    for kind, file in (("sensors", clip.sensors), ("truth", clip.truth)):
        rows = re.findall(rf"^\| `{kind}/` \| (`[a-z_`, 0-9]+`) \|", section, re.MULTILINE)
        documented = {name for row in rows for name in re.findall(r"`([a-z_0-9]+)`", row)}
        assert file is not None
        with np.load(file.path) as arrays:
            assert documented == set(arrays.files)
    named = set(re.findall(r"`([a-z_0-9]+)`", section.split("`metadata` hold plain facts:")[1]))
    assert set(clip.metadata) <= named


@pytest.mark.usefixtures("added")
def test_the_example_of_a_new_dataset_prepares_its_videos(tmp_path: Path):
    source, out = tmp_path / "my_fleet", tmp_path / "out"
    for name in ("a", "b"):
        write_video(source / f"{name}.mp4", num_frames=30, fps=10)
    (source / "incidents.csv").write_text("file,kind,second\nb.mp4,collision,1.5\nc.mp4,collision,2\n")
    search = f"hydra.searchpath=[file://{tmp_path / 'conf'}]"
    assert run("prepare", "dataset=fleet", f"source={source}", f"out={out}", search) == 0
    labels = {clip.source_video_id: (clip.label, clip.event_time_s) for clip in load_clips(out / "clips.jsonl")}
    assert labels == {"a": ("normal", None), "b": ("collision", 1.5)}
    assert [aside.item for aside in read_jsonl(out / "quarantine.jsonl", SetAside)] == ["c.mp4"]


def test_the_readmes_picture_can_be_drawn_again(tmp_path: Path):
    target = tmp_path / "outcomes.png"
    script = REPOSITORY / "docs" / "images" / "outcomes.py"
    runpy.run_path(str(script))["draw_outcomes"](target)
    committed = REPOSITORY / "docs" / "images" / "outcomes.png"
    for path in (target, committed):
        assert path.stat().st_size < 300_000
    assert Image.open(target).size == Image.open(committed).size
