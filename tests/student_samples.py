"""Small clips, students and the plain one-sequence-at-a-time computation that student tests compare with."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from patch_student import PatchStudent, build_patch_student
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

from autodrive.students.nvila_recipes import TinyNvila
from autodrive.students.nvila_student import NvilaStudent
from autodrive.students.qwen3_student import Qwen3VLStudent
from autodrive.students.qwen_student import QwenStudent
from autodrive.students.qwen_tiny import TinyQwen2_5_VL, TinyQwen3VL
from autodrive.students.resolution import Resolution
from autodrive.students.student import Student
from autodrive.students.towers import Towers
from autodrive.students.tuning import LowRankAdapter, make_trainable
from autodrive.trees.clip_tree import ClipTree, TokenBranch, TreeRow
from autodrive.trees.packing import pack_trees
from autodrive.trees.sample import Branch, ClipSample, Text, Turn, Video
from autodrive.video.decoder import DecodedFrames

SYSTEM = "You watch dashcam video."
MCQ = "What happens?\nA. normal driving\nB. a near-collision\nC. a collision\nAnswer with one letter."
WEATHER = "What is the weather?"


def one_turn(
    name: str, prompt: str, target: str | None = None, options: tuple[str, ...] = (), **changes: Any
) -> Branch:
    """A branch of a single turn."""
    return Branch(name, (Turn(prompt, target),), options, **changes)


BRANCHES = (
    one_turn("mcq", MCQ, "B", ("A", "B", "C")),
    one_turn("weather", WEATHER, "heavy rain", ("clear", "heavy rain", "fog")),
    one_turn("caption", "Describe the clip.", "The car ahead brakes hard and stops in time."),
)
THINK = one_turn(
    "think", MCQ, "<think>The car ahead brakes hard. The gap closes but stays open.</think><answer>B</answer>"
)
CONVERSATION = Branch(
    "conversation",
    (Turn(WEATHER, "heavy rain"), Turn("Describe the clip.", "The car ahead brakes hard."), Turn(MCQ, "B")),
    ("A", "B", "C"),
)
BEFORE, AFTER = Text("What happens in this clip of the front camera?"), Text("It was taken in heavy rain.")
TEXTS = [SYSTEM, BEFORE.text, AFTER.text] + [
    text
    for one in (*BRANCHES, THINK, CONVERSATION)
    for text in (*(t for turn in one.turns for t in (turn.prompt, turn.target or "")), *one.option_targets)
]


def make_frames(num_frames: int, height: int, width: int, fps: float, seed: int = 0) -> DecodedFrames:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (num_frames, 3, height, width), dtype=torch.uint8, generator=generator)
    return DecodedFrames(frames, torch.arange(num_frames).double() / fps)


def make_sample(
    num_frames: int = 6,
    height: int = 56,
    width: int = 84,
    fps: float = 2.0,
    branches: tuple[Branch, ...] = BRANCHES,
    seed: int = 0,
) -> ClipSample:
    frames = make_frames(num_frames, height, width, fps, seed)
    return ClipSample(f"video{seed}#0", SYSTEM, (Video(frames, fps),), branches)


def make_student(seed: int = 0, **changes) -> QwenStudent:
    """A tiny student; the fan-in initialisation makes its logits sensitive to every position and mask."""
    spec = TinyQwen2_5_VL("tiny", vocab_size=400, **changes)
    return cast(QwenStudent, spec.build(TEXTS * 3, Resolution(16, 1), seed))


def make_tied_student() -> QwenStudent:
    """One whose head is its embedding, as in the smaller released checkpoints."""
    student = make_student()
    config = copy.deepcopy(student.model.config)
    for part in (config, config.get_text_config()):
        part.tie_word_embeddings = True
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.load_state_dict(student.model.state_dict())
    model.tie_weights()
    assert model.lm_head.weight is model.get_input_embeddings().weight
    return QwenStudent("tied", model, student.processor)


def write_released(student: QwenStudent, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A checkpoint in the layout of the released ones: config, safetensors, tokenizer, preprocessor."""
    cast(Any, student.stock_model()).to(dtype).save_pretrained(folder)
    student.processor.tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil().save_pretrained(folder)
    return folder


def make_qwen3_student(seed: int = 0) -> Qwen3VLStudent:
    """Two layers of its language model, the last one among them, take deepstack features."""
    spec = TinyQwen3VL("tiny3", vocab_size=400, vision_layers=3, patch_size=14)
    return cast(Qwen3VLStudent, spec.build(TEXTS * 3, Resolution(16, 1), seed))


def make_nvila_student(seed: int = 0, **changes: Any) -> NvilaStudent:
    return TinyNvila("nvila", vocab_size=400, **changes).build(TEXTS * 3, Resolution(16, 1), seed)


def make_nvila_lite_student(seed: int = 0) -> NvilaStudent:
    """The other projector, whose squares of three patches leave a rest, and means over four frames, which leave one."""
    return make_nvila_student(seed, projector="lite", pooled_frames=4)


def make_patch_student(seed: int = 0) -> PatchStudent:
    """The second family; time is not in its tokens."""
    return build_patch_student(TEXTS * 3, seed)


FAMILIES = {
    "qwen2_5_vl": make_student,
    "qwen3_vl": make_qwen3_student,
    "nvila": make_nvila_student,
    "nvila_lite": make_nvila_lite_student,
    "patches": make_patch_student,
}


ADAPTERS = ("lora", "dora", "qlora", "qdora")


def low_rank(kind: str, rank: int | None = 4, **changes: Any) -> LowRankAdapter:
    """An adapter on all linear layers of the language model, as `conf/adapter` has it."""
    settings: dict[str, Any] = {"alpha": "2r", "dropout": 0.0, "targets": {"language": "all"}}
    return LowRankAdapter(kind, rank, **(settings | changes))  # pyright: ignore[reportArgumentType]


def put_adapter(towers: Towers, kind: str, **changes: Any) -> None:
    """An adapter in place, every tensor of which is random: peft begins with a zero matrix, whose partner would have no
    gradient, and with magnitudes that change nothing."""
    make_trainable(towers, low_rank(kind, **changes), (), seed=0)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in towers.model.named_parameters():
        if parameter.is_meta:
            continue
        if "lora_magnitude" in name:
            parameter.data *= 1 + 0.1 * torch.rand(parameter.shape, generator=generator)
        elif "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1


def stock_towers(student: Student, model: nn.Module) -> Towers:
    """The towers of what `stock_model` gave."""
    paths = {id(module): path for path, module in student.model.named_modules()}

    def same(part: nn.Module) -> nn.Module:
        return model.get_submodule(paths[id(part)])

    return Towers(model, same(student.vision), [same(part) for part in student.projectors], same(student.head))


def encoded(student: Student, sample: ClipSample) -> ClipTree:
    """A sample as this student wants it: frames of other sizes are drawn anew where its family has but one."""

    def fitting(part: Text | Video) -> Text | Video:
        if isinstance(part, Text) or not student.processor.fixed_resolution:
            return part
        frames = part.frames.frames_TCHW
        height, width = student.processor.frame_size(frames.shape[3], frames.shape[2])
        seed = int(frames.sum()) % 1000
        return replace(part, frames=make_frames(len(frames), height, width, part.fps, seed))

    return student.processor.encode(replace(sample, prefix=tuple(map(fitting, sample.prefix))))


def make_trees(student: Student, case: dict) -> list[ClipTree]:
    """Two clips with another number of branches, so that their trees differ in length."""
    two = make_sample(**case, branches=BRANCHES[1:], seed=1)
    return [encoded(student, sample) for sample in (make_sample(**case), two)]


def pack_one(student: Student, *samples: ClipSample) -> TreeRow:
    """All samples in one row."""
    (row,) = pack_trees([encoded(student, sample) for sample in samples], 10**6)
    return row


def plain_logits(model: nn.Module, student: Student, tree: ClipTree, ids: list[int]) -> Tensor:
    """Logits (len(ids), vocabulary) after each token of one branch, as one causal sequence without any of our masks."""
    logits = cast(Any, model)(**student.stock_inputs(tree, ids), use_cache=False).logits
    return logits[0, len(tree.prefix_ids) :]


def plain_target_logits(model: nn.Module, student: Student, tree: ClipTree, branch: TokenBranch) -> Tensor:
    """Logits (targets, vocabulary) that predict the target tokens of a branch's turns, computed alone."""
    places, start = [], 0
    for turn in branch.turns:
        start += len(turn.prompt_ids)
        places += range(start - 1, start + len(turn.target_ids) - 1)
        start += len(turn.target_ids)
    return plain_logits(model, student, tree, branch.ids)[places]
