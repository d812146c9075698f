"""Small clips, students and the plain one-sequence-at-a-time computation that student tests compare with."""

import copy

import torch
from records import make_clip
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from autodrive.mixture.clip_tree import Branch, ClipSample, ClipTree, TokenBranch, TreeRow
from autodrive.mixture.packing import pack_trees
from autodrive.students.preprocessing import Resolution
from autodrive.students.qwen2_5_vl import QwenStudent
from autodrive.students.tiny import TinyQwen2_5_VL
from autodrive.video.decoder import DecodedFrames

SYSTEM = "You watch dashcam video."
MCQ = "What happens?\nA. normal driving\nB. a near-collision\nC. a collision\nAnswer with one letter."
WEATHER = "What is the weather?"
BRANCHES = (
    Branch("mcq", MCQ, "B", ("A", "B", "C")),
    Branch("weather", WEATHER, "heavy rain", ("clear", "heavy rain", "fog")),
    Branch("caption", "Describe the clip.", "The car ahead brakes hard and stops in time."),
)
THINK = Branch(
    "think", MCQ, "<think>The car ahead brakes hard. The gap closes but stays open.</think><answer>B</answer>"
)
TEXTS = [SYSTEM] + [
    text for branch in (*BRANCHES, THINK) for text in (branch.prompt, branch.target or "", *branch.option_targets)
]


def make_sample(
    num_frames: int = 6,
    height: int = 56,
    width: int = 84,
    fps: float = 2.0,
    branches: tuple[Branch, ...] = BRANCHES,
    seed: int = 0,
) -> ClipSample:
    clip = make_clip(id=f"video{seed}#0", source_video_id=f"video{seed}", end_s=num_frames / fps)
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (num_frames, 3, height, width), dtype=torch.uint8, generator=generator)
    return ClipSample(clip, DecodedFrames(frames, torch.arange(num_frames).double() / fps), SYSTEM, branches)


def make_student(fps: float = 2.0, seed: int = 0, **changes) -> QwenStudent:
    """A tiny student; the fan-in initialisation makes its logits sensitive to every position and mask."""
    spec = TinyQwen2_5_VL("tiny", vocab_size=400, **changes)
    return spec.build(TEXTS * 3, fps, Resolution(16, 1), seed)


FAMILIES = {"qwen2_5_vl": make_student}


def make_trees(student: QwenStudent, case: dict) -> list[ClipTree]:
    """Two clips with another number of branches, so that their trees differ in length."""
    two = make_sample(**case, branches=BRANCHES[1:], seed=1)
    return [student.processor.encode(sample) for sample in (make_sample(**case), two)]


def pack_one(student: QwenStudent, *samples: ClipSample) -> TreeRow:
    """All samples in one row."""
    (row,) = pack_trees([student.processor.encode(sample) for sample in samples], 10**6)
    return row


def stock_model(student: QwenStudent) -> Qwen2_5_VLForConditionalGeneration:
    """transformers' own model, untouched, with the student's weights."""
    model = Qwen2_5_VLForConditionalGeneration(copy.deepcopy(student.model.config))
    model.set_attn_implementation("sdpa")
    model.load_state_dict(student.model.state_dict())
    return model.eval()


def plain_logits(model: Qwen2_5_VLForConditionalGeneration, student: QwenStudent, tree: ClipTree, ids: list[int]):
    """Logits (len(ids), vocabulary) after each token of one branch, as one causal sequence without any of our masks."""
    vision = student.processor.vision
    per_channel = tree.patches_PD.reshape(len(tree.patches_PD), 3, -1).double() / 255
    mean, std = torch.tensor(vision.image_mean).double(), torch.tensor(vision.image_std).double()
    pixels = ((per_channel - mean[:, None]) / std[:, None]).flatten(1).float()
    steps = (torch.arange(len(ids)) + tree.branch_start).to(tree.prefix_positions)
    logits = model(
        input_ids=torch.tensor([tree.prefix_ids + ids]),
        position_ids=torch.cat([tree.prefix_positions, steps.expand(3, -1)], dim=1)[:, None],
        pixel_values_videos=pixels,
        video_grid_thw=torch.tensor([tree.grid_thw]),
        use_cache=False,
    ).logits
    return logits[0, len(tree.prefix_ids) :]


def plain_target_logits(model, student: QwenStudent, tree: ClipTree, branch: TokenBranch) -> Tensor:
    """Logits (targets, vocabulary) that predict a branch's target tokens, computed alone."""
    start = len(branch.prompt_ids)
    return plain_logits(model, student, tree, branch.prompt_ids + branch.target_ids)[start - 1 : -1]
