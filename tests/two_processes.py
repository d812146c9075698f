"""Trains students with one process and with two, and finds how far apart they end.

All strategies in one pair of processes, the first of which also trains alone: most of the time is theirs to start.
tests/test_training_strategies.py starts them.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import OmegaConf
from records import make_clip, make_view
from run_samples import label_set, task_book
from student_samples import TEXTS, make_student, make_tied_student, put_adapter
from torch.distributed.tensor import DTensor
from video_files import write_video

from autodrive.annotation.supply import AnnotatedClip
from autodrive.entry_point import CONFIG_FOLDER
from autodrive.mixture.clip_batches import Batching, BranchWriter, ClipReader
from autodrive.mixture.datamodule import ClipTreeDataModule
from autodrive.mixture.mixture import Mixture
from autodrive.ranks.group import Group, this_group
from autodrive.runs.checkpoints import WholeCheckpoints, read_checkpoint
from autodrive.runs.inputs import RunInputs
from autodrive.runs.machine import quiet_libraries
from autodrive.schema import Annotation
from autodrive.students.sharding import weights_from_the_first
from autodrive.students.student import Student, load_student
from autodrive.students.tuning import FullTuning, make_trainable
from autodrive.training.fitting import make_trainer
from autodrive.training.sft import Steps, SupervisedFineTuning
from autodrive.training.strategies import Sharing
from autodrive.trees.sharing import Share
from autodrive.video.decoder import PyAVDecoder
from autodrive.video.frame_grid import FrameGrid

TUNINGS = ("full", "dora", "tied")  # "tied": in full, where embedding and head are one weight; "dora": with noise
NUM_STEPS, VISITS, MAX_GRAD_NORM = 3, 3, 0.5
TOKENS_PER_ROW = 160  # one process packs 5 rows, 9 and 5; two have as many each, of which some are fillers
SECONDS = (1.0, 2.0, 3.0, 4.0)


def write_videos(folder: Path) -> None:
    for number, seconds in enumerate(SECONDS):
        write_video(folder / f"{number}.mp4", num_frames=int(seconds * 10), fps=10, size=(48, 80))


def annotated_clips(folder: Path) -> list[AnnotatedClip]:
    """Four clips of different lengths, two with one annotation and two with seven."""
    clips = []
    for number, seconds in enumerate(SECONDS):
        view = make_view(str(folder / f"{number}.mp4"), native_fps=10, width=80, height=48)
        clip = make_clip(view, id=f"{number}#0", source_video_id=str(number), end_s=seconds)
        answers = [TEXTS[(number + i) % len(TEXTS)] for i in range(7 if number % 2 else 1)]
        made = [
            Annotation.create(clip.id, "caption", f"Describe {i}.", text, "rule/2") for i, text in enumerate(answers)
        ]
        clips.append(AnnotatedClip(clip, "collision", {"captions": tuple(made)}))
    return clips


class Watch(L.Callback):
    """Writes a checkpoint after every step, and keeps what it came with."""

    def __init__(self, name: Path) -> None:
        self.name = name
        self.seen: dict[str, list[Any]] = {key: [] for key in ("loss", "gradient_norm", "rows", "fillers", "clips")}
        self.shard = 1.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        trainer.save_checkpoint(f"{self.name}{trainer.global_step}.ckpt")
        for key in ("loss", "gradient_norm"):
            self.seen[key].append(float(outputs[key]))
        self.seen["rows"].append(len(batch))
        self.seen["fillers"].append(sum(row.filler for row in batch))
        self.seen["clips"].append(sorted({tree.clip_id for row in batch for tree in row.trees}))
        self.shard = min(self.shard, *(share_of_rank(parameter) for parameter in pl_module.parameters()))


def share_of_rank(parameter: Any) -> float:
    """How much of a weight lies in this process."""
    if isinstance(parameter, DTensor):
        return parameter.to_local().numel() / parameter.numel()
    return parameter.ds_tensor.numel() / parameter.ds_numel if hasattr(parameter, "ds_tensor") else 1.0


def student_to_train(tuning: str, folder: Path, unread: bool) -> Student:
    """The same student for all; `unread`: as a process has it that leaves reading to the first one."""
    student: Student = make_tied_student() if tuning == "tied" else make_student()
    if unread:
        with weights_from_the_first(here=True):
            student = load_student(folder / ("tied_student" if tuning == "tied" else "student"))
    if tuning == "dora":
        put_adapter(student.towers, tuning)
    else:
        make_trainable(student.towers, FullTuning(), (), seed=0)
    return student


def train(strategy: str, tuning: str, folder: Path, name: str, start: str | None = None) -> dict[str, Any]:
    """Train to the third step; checkpoints are `<name><step>.ckpt`, and `start` is one to go on from.

    All processes call this, or for the strategy `single` one of them.

    Those of an adapter are one file; where all weights are trained, strategies that can write parts do.
    """
    group = Group() if strategy == "single" else this_group()
    node: Any = OmegaConf.load(CONFIG_FOLDER / "strategy" / f"{strategy}.yaml")
    if "one_file_up_to" in node and tuning != "dora":
        node.one_file_up_to = 0
    sharing: Sharing = instantiate(node)
    student = student_to_train(tuning, folder, unread=sharing.reads_once and not group.leads)
    unread = all(parameter.is_meta for parameter in student.parameters())
    clips = annotated_clips(folder)
    plan = Mixture().plan(clips, ("captions",), seed=0)
    batching = Batching(VISITS, TOKENS_PER_ROW, 0, share=Share(group.rank, group.size), width=64)
    loaders = ClipTreeDataModule(
        {"train": clips, "val": [], "test": []},
        Mixture().schedule(plan, VISITS),
        ClipReader(PyAVDecoder(), student.processor, FrameGrid(4)),
        BranchWriter(task_book(), label_set()),
        batching,
        NUM_STEPS,
    )
    method = SupervisedFineTuning(
        student,
        # With a smaller eps, Adam would make whole steps of what is only rounding.
        Steps(partial(torch.optim.AdamW, lr=1e-3, eps=1e-5), lambda step: 1.0 - 0.1 * step, {}, 0, sharing, group),
        max_grad_norm=MAX_GRAD_NORM,
        gradient_checkpointing=False,
        neftune_alpha=5.0 if tuning == "dora" else None,
    )
    watch = Watch(folder / name)
    trainer = make_trainer(
        accelerator="cpu",
        devices=group.size,
        num_nodes=1,
        precision="32-true",
        log_every_n_steps=1,
        val_check_interval=NUM_STEPS,
        max_steps=NUM_STEPS,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[watch],
        strategy=sharing.for_lightning(group.size, MAX_GRAD_NORM),
        plugins=[WholeCheckpoints(RunInputs("", "", None)), LightningEnvironment()],
        default_root_dir=str(folder),
    )
    trainer.fit(method, loaders, ckpt_path=None if start is None else str(folder / start))
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    order = [names[id(parameter)] for trained in method.trained_groups for parameter in trained]
    return {**watch.seen, "shard": watch.shard, "unread": unread, "order": order}


def compared(folder: Path, order: list[str], ours: str, theirs: str, what: str) -> dict[str, float]:
    """How far two checkpoints are apart, tensor by tensor, relative to its own norm.

    The first moments of Adam after one step are a tenth of the gradients as they were clipped. The key's part of a bias
    changes no attention: its gradient is 0 but for rounding, and Adam makes steps of whatever is left. So it is
    compared by its gradient, with the largest one.
    """
    checkpoints = [read_checkpoint(folder / f"{name}.ckpt") for name in (ours, theirs)]
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in checkpoints]
    assert len(order) == len(states[0]) == len(states[1])
    found = {}
    largest = max(float(state["exp_avg"].norm()) for state in states[0].values())
    for place, name in enumerate(order):
        a, b = [
            state[place]["exp_avg"] if what == "gradients" else checkpoint["state_dict"][name]
            for state, checkpoint in zip(states, checkpoints, strict=True)
        ]
        if name.endswith("attn.qkv.bias"):
            key = slice(len(a) // 3, 2 * len(a) // 3)
            one, other = (state[place]["exp_avg"][key] for state in states)
            found[f"{name} (key)"] = float((one - other).norm()) / largest
            a, b = (torch.cat([t[: key.start], t[key.stop :]]) for t in (a, b))
        found[name] = float((a - b).norm() / a.norm())
    return found


def train_and_compare(strategies: Sequence[str], folder: Path) -> dict[str, Any]:
    """What each of the two processes does; the first one returns what it found, by strategy."""
    quiet_libraries()
    torch.set_num_threads(1)
    group, alone = this_group(), dict[str, dict[str, Any]]()
    if group.leads:
        write_videos(folder)
        make_student().save(folder / "student")
        make_tied_student().save(folder / "tied_student")
        alone = {tuning: train("single", tuning, folder, f"single_{tuning}_") for tuning in TUNINGS}
    group.wait()
    found: dict[str, dict[str, Any]] = {}
    for strategy in strategies:
        ranks = {tuning: group.all_of(train(strategy, tuning, folder, f"{strategy}_{tuning}_")) for tuning in TUNINGS}
        train(strategy, "full", folder, f"{strategy}_resumed_", "single_full_1.ckpt")
        if strategy == "fsdp":
            train(strategy, "tied", folder, "fsdp_again_", "fsdp_tied_2.ckpt")
        if group.leads:
            train("single", "full", folder, f"after_{strategy}_", f"{strategy}_full_2.ckpt")
            found[strategy] = against_one(strategy, folder, alone, ranks)
        group.wait()
    return found


def against_one(
    strategy: str, folder: Path, alone: Mapping[str, Any], ranks: Mapping[str, Sequence[dict[str, Any]]]
) -> dict[str, Any]:
    """What two processes saw beside what one did, and how far their weights are from its."""
    result: dict[str, Any] = {}
    for tuning in TUNINGS:
        order, prefix = alone[tuning]["order"], f"single_{tuning}_"
        result[tuning] = {
            "alone": alone[tuning],
            "ranks": ranks[tuning],
            "gradients": compared(folder, order, f"{prefix}1", f"{strategy}_{tuning}_1", "gradients"),
            "weights": compared(folder, order, f"{prefix}3", f"{strategy}_{tuning}_3", "weights"),
        }
    others = {f"{strategy}_resumed_3": "full", f"after_{strategy}_3": "full"}
    if strategy == "fsdp":
        others["fsdp_again_3"] = "tied"
        result["parts"] = [path.stat().st_size for path in (folder / "fsdp_full_3-3.parts").iterdir()]
        result["file"] = (folder / "fsdp_full_3.ckpt").stat().st_size
        result["folders"] = [path.name for path in folder.glob("fsdp_*.parts")]
    for name, tuning in others.items():
        result[name] = compared(folder, alone[tuning]["order"], f"single_{tuning}_3", name, "weights")
    return result
