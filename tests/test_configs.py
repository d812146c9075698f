import dataclasses
from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate
from omegaconf import MISSING, OmegaConf
from running import composed

from autodrive.assembly import training_choice
from autodrive.config import EvalConfig, PlanConfig, TrainConfig, check_config
from autodrive.config_check import check_targets
from autodrive.config_identity import config_hash
from autodrive.entry_point import CONFIG_FOLDER, CommandLine
from autodrive.errors import InputError
from autodrive.runs.folder import save_config
from autodrive.runs.processes import ranks_wanted
from autodrive.runs.resume import resumed_config
from autodrive.students.resolution import Resolution

EXPERIMENTS = sorted(
    path.relative_to(CONFIG_FOLDER / "experiment").with_suffix("").as_posix()
    for path in (CONFIG_FOLDER / "experiment").rglob("*.yaml")
)
GROUPS = (
    "dataset",
    "labels",
    "annotations",
    "mixture",
    "questions",
    "prompts",
    "student",
    "adapter",
    "decoder",
    "frame_cache",
    "trainer",
    "strategy",
    "logger",
    "method",
    "optimizer",
    "schedule",
)
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONFIG_FOLDER / group).glob("*.yaml"))]


@pytest.mark.parametrize("scale", ["tiny", "paper"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_at_every_scale(experiment: str, scale: str):
    config = composed("train", [f"experiment={experiment}", f"scale={scale}"])
    assert config.scale == scale
    assert set(config) == {field.name for field in dataclasses.fields(TrainConfig)}
    if scale == "tiny" or experiment != "smoke":  # smoke shrinks the rendered world, which scale=paper does not use
        check_config(config, TrainConfig)


@pytest.mark.parametrize(("verb", "keys"), [("eval", EvalConfig), ("plan", PlanConfig)])
def test_other_verbs_have_the_values_that_an_experiment_sets(verb: str, keys: type):
    """Their own keys are composed after it, so that a default of theirs would take its place."""
    given = ["experiment=ltvad_distillation", "annotations.file.path=a.jsonl"]
    ours, theirs = composed(verb, given), composed("train", given)
    assert theirs.rank == 64
    shared = {field.name for field in dataclasses.fields(TrainConfig)} - {"logger"}  # nobody plans what is logged
    assert not [key for key in shared if ours._get_node(key) != theirs._get_node(key)]
    assert not [f.name for f in dataclasses.fields(keys) if f.name in shared and f.default != MISSING]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_names_a_class_with_these_keys(group: str, option: str):
    if (group, option) == ("student", "endpoint"):  # is asked only
        check_config(composed("eval", ["student=endpoint", "base_url=http://a/v1", "model=m"]), EvalConfig)
    else:
        check_config(composed("train", [f"{group}={option}"]), TrainConfig)


@pytest.mark.parametrize(
    ("command", "kind", "processes"),
    [
        ("experiment=autodrive_full trainer=h100x32_zero3", "deepspeed_zero3", (8, 4)),
        ("experiment=trinci_dora trainer=a10gx4_ddp", "ddp", (4, 1)),
        ("experiment=sakajo_language trainer=a100x8_zero2", "deepspeed_zero2", (8, 1)),
    ],
)
def test_a_paper_s_training_goes_with_its_machines(command: str, kind: str, processes: tuple[int, int]):
    config = composed("train", [*command.split(), "source=x", "dataset=nexar"])
    check_config(config, TrainConfig)
    assert instantiate(config.strategy).kind == kind
    assert tuple(ranks_wanted(config)) == processes
    training_choice(config, instantiate(config.student))  # raises what does not go together


def test_slurm_is_asked_for_a_task_for_every_process():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason='pip install -e ".[slurm]"')
    command = ["hydra/launcher=slurm", "strategy=fsdp", "trainer.devices=8", "trainer.num_nodes=4"]
    launcher = composed("train", command, with_hydra=True).hydra.launcher
    assert (launcher.tasks_per_node, launcher.gpus_per_node, launcher.nodes) == (8, 8, 4)
    assert launcher._target_.endswith("SlurmLauncher")


SERVER = ("base_url=http://a/v1", "model=m")


@pytest.mark.parametrize("verb", ["train", "eval", "export", "parity", "plan", "power", "predict", "prepare", "report"])
def test_every_verb_s_file_composes(verb: str):
    config = composed(verb, SERVER if verb in ("eval", "parity") else ())
    check_targets(config)
    keys = OmegaConf.get_type(config)
    assert keys is not None
    assert set(config) == {field.name for field in dataclasses.fields(keys)}


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_axes_of_a_scale_hold_the_defaults_and_can_be_used(scale: str):
    config = composed("train", [f"scale={scale}"])
    for key in ("fps", "lr", "resolution", "duration_s"):
        assert config[key] in config.axes[key].values(), key
    for value in config.axes.resolution.values():
        Resolution.parse(value)
    both = [composed("train", [f"scale={name}"]).axes for name in ("tiny", "paper")]
    assert [set(axes) for axes in both] == [{"fps", "lr", "resolution", "duration_s", "rank", "mixture"}] * 2
    for key in both[0]:
        assert list(both[0][key]) == list(both[1][key]), key


@pytest.mark.parametrize("group", ["annotations", "mixture", "questions", "labels", "prompts"])
def test_a_scale_changes_neither_what_is_taught_nor_what_is_asked(group: str):
    tiny, paper = (composed("train", [f"scale={scale}", "source=x"]) for scale in ("tiny", "paper"))
    assert tiny[group] == paper[group]


def test_the_laptop_s_values_are_in_sight():
    """Whoever opens conf/train.yaml sees what runs; scale=tiny adds names for the axes only."""
    shown = yaml.safe_load((CONFIG_FOLDER / "train.yaml").read_text(encoding="utf-8"))
    config = composed("train", ["scale=tiny"])
    for key in ("fps", "duration_s", "resolution", "lr", "batch_size", "tokens_per_row", "num_steps", "seed"):
        assert float(shown[key]) == config[key] if key != "resolution" else shown[key] == config[key], key
    scale = yaml.safe_load((CONFIG_FOLDER / "scale" / "tiny.yaml").read_text(encoding="utf-8"))
    assert set(scale) == {"scale", "axes"}


def test_paper_scale_has_the_paper_s_values():
    config = composed("train", ["scale=paper", "source=/nexar"])
    assert (config.fps, config.duration_s, config.resolution, config.lr) == (30, 6, "128x32", 1e-5)
    assert config.student.checkpoint == "nvidia/Cosmos-Reason1-7B"
    assert config.dataset.source == "/nexar"


def test_experiments_sweep_published_axes():
    published = {path.stem for path in (CONFIG_FOLDER.parent / "experiments" / "published").glob("*.yaml")}
    for experiment in EXPERIMENTS:
        paper, _, table = experiment.partition("/")
        if table:
            assert paper in published
            swept = composed("train", [f"experiment={experiment}"], with_hydra=True).hydra.sweeper.params
            assert set(swept) <= set(composed("train").axes)


def test_loggers_methods_and_trainers_instantiate(tmp_path: Path):
    config = composed("train", ["logger=csv"])
    trainer = instantiate(config.trainer, max_steps=120, logger=False, val_check_interval=50)
    assert (trainer.max_steps, trainer.val_check_interval, trainer.max_epochs) == (120, 40, -1)
    for logger in config.logger.values():
        instantiate(logger, save_dir=str(tmp_path))
    for group in ("labels", "prompts", "mixture", "decoder", "student"):
        instantiate(config[group])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("fps=0", "fps=0.0: must be greater than 0"),
        ("lr=-1e-3", "lr=-0.001: must be greater than 0"),
        ("batch_size=0", "batch_size=0"),
        ("num_steps=0", "num_steps=0"),
        ("seed=-1", "seed=-1: must be greater than or equal to 0"),
        ("+fsp=3", "+fsp: there is no such key"),
        ("evaluation.modes=[direkt]", "evaluation.modes=direkt: must be 'direct' or 'reasoning'"),
        ("evaluation.modes=[]", "evaluation.modes=[]"),
        ("evaluation.modes=[direct,direct]", "must not name anything twice"),
    ],
)
def test_values_out_of_range_are_refused(override: str, said: str):
    with pytest.raises(InputError) as caught:
        check_config(composed("train", [override]), TrainConfig)
    assert said in str(caught.value)


def test_yaml_files_say_what_they_are_for():
    """A configuration that says nothing about itself is a line of data with a comment in front."""
    for path in CONFIG_FOLDER.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert isinstance(yaml.safe_load(text), dict), path
        assert len(text.splitlines()) < 80, path


def test_a_cache_that_keeps_the_pixels_is_no_other_run():
    hashes = {option: config_hash(composed("train", [f"frame_cache={option}"])) for option in ("none", "raw", "jpeg")}
    assert hashes["none"] == hashes["raw"] != hashes["jpeg"]
    elsewhere = composed("train", ["frame_cache=jpeg", "frame_cache.max_gb=1", "frame_cache.folder=/fast"])
    assert config_hash(elsewhere) == hashes["jpeg"]
    assert config_hash(composed("train", ["frame_cache=jpeg", "frame_cache.codec.quality=50"])) != hashes["jpeg"]


def test_a_resumed_run_may_begin_to_keep_frames_but_not_to_change_them(tmp_path: Path):
    save_config(composed("train"), tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    for overrides in ([], ["frame_cache=raw", "frame_cache.max_gb=2"]):
        config = composed("train", [f"resume={tmp_path}", *overrides])
        assert resumed_config(config, CommandLine(overrides, {})).frame_cache == config.frame_cache
    moved = composed("train", [f"resume={tmp_path}", "clips=/elsewhere/clips.jsonl"])
    assert resumed_config(moved, CommandLine(["clips=/elsewhere/clips.jsonl"], {})).clips == "/elsewhere/clips.jsonl"
    changed = composed("train", [f"resume={tmp_path}", "frame_cache=jpeg"])
    with pytest.raises(InputError, match="frame_cache differs"):
        resumed_config(changed, CommandLine(["frame_cache=jpeg"], {}))
