"""Whether clip trees are exact with what is installed here: asked once, of the first clip that is there.

The test suite shows it for the versions that it runs with. Another torch or transformers, another device with kernels
of its own, or another type may compute something else without a word: branches would see each other, say.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from autodrive.errors import InputError
from autodrive.students.prefill import without_gradients
from autodrive.students.student import Student
from autodrive.students.tree_attention import CLIP_TREES, use_tree_attention
from autodrive.trees.clip_tree import ClipTree, TokenBranch, TokenTurn
from autodrive.trees.packing import pack_trees

FOLDER = "self_checks"  # below `paths.data_dir`
PACKAGES = ("torch", "transformers", "peft")
ONE_ROW = 10**9
# Most that rounding may move a token's log-probability. bfloat16: two steps between numbers from 16 to 32, where the
# largest logits are. float32: a GPU's products may take TensorFloat-32; those of a CPU stay below a hundredth of this.
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.25}


def check_once(student: Student, tree: Callable[[], ClipTree | None], autocast: bool, data_dir: Path) -> None:
    """Compare clip trees with separate sequences, unless this machine has done so with the same of everything.

    What was found is a file in `self_checks` below `data_dir`. Nothing is written after a failure, so that the next run
    asks again.

    Args:
        student: The student, on the device that it will work on.
        tree: Gives a clip; called only if there is something to do. None where nothing has options to score.
        autocast: Whether the forward pass computes in bfloat16 whatever the type of the weights.
        data_dir: Folder of data that stay on this machine.

    Raises:
        InputError: The scores differ by more than rounding explains. The environment counts as input here: no
            configuration is wrong, but what is installed cannot do the work.
    """
    facts = _facts(student, autocast)
    path = data_dir / FOLDER / f"{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}.json"
    if path.is_file():
        return
    clip = tree()
    if clip is None:
        return
    difference, allowed = largest_difference(student, clip, autocast), ROUNDING[_dtype(student, autocast)]
    if not difference <= allowed:  # nan is not
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        raise InputError(
            f"self-check: option scores of clip trees differ by {difference:.2g} from those of separate sequences, "
            f"where {facts['dtype']} explains {allowed:g}, with {versions} on {facts['device']}; install versions that "
            "pass pytest tests/test_students_exactness.py"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    # That it is there is all that is read, so that two runs which begin together may write it at the same time.
    path.write_text(json.dumps(facts | {"largest_difference": difference, "allowed": allowed}, indent=2) + "\n")


@without_gradients
def largest_difference(student: Student, tree: ClipTree, autocast: bool) -> float:
    """How far option scores of a clip tree are from those of separate sequences under the model's own sdpa attention.

    Args:
        student: The student, on any device; in evaluation mode meanwhile.
        tree: The clip with branches that have options; answers that it holds are left out.
        autocast: Whether a forward pass computes in bfloat16 whatever the type of the weights.

    Returns:
        The largest difference of an option's log-probability, divided by its number of tokens; nan if a score is.
    """
    device = next(student.parameters()).device
    asked = replace(tree, branches=tuple(branch.asked() for branch in tree.branches))
    training = student.training
    student.eval()
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            (row,) = pack_trees([asked], ONE_ROW)
            found = student.prefill(row.to(device)).score_options()
            with _own_attention(student):
                expected = [
                    [_alone(student, asked, branch, option) for option in branch.option_ids]
                    for branch in asked.branches
                ]
    finally:
        student.train(training)
    differences = [
        abs(ours - theirs) / len(option)
        for branch, scores, alone in zip(asked.branches, found, expected, strict=True)
        for option, ours, theirs in zip(branch.option_ids, scores, alone, strict=True)
    ]
    return float(torch.tensor(differences).max())  # which gives nan if one is


def _alone(student: Student, tree: ClipTree, branch: TokenBranch, option: tuple[int, ...]) -> float:
    """Log-probability of an option where its branch alone follows the prefix: one plain causal sequence."""
    turns = (*branch.turns[:-1], TokenTurn(branch.turns[-1].prompt_ids, list(option)))
    (row,) = pack_trees([replace(tree, branches=(replace(branch, turns=turns),))], ONE_ROW)
    row = row.to(next(student.parameters()).device)
    positions = row.position_ids if len(row.position_ids) == 1 else row.position_ids[:, None]
    embedded = student.embed(row)
    hidden_NC = student.text_model(
        inputs_embeds=embedded.tokens_NC[None], position_ids=positions, use_cache=False, **embedded.further
    ).last_hidden_state[0]
    end = row.spans[0].target_start - 1
    log_probs = student.head(hidden_NC[end : end + len(option)]).float().log_softmax(-1)
    return float(log_probs.gather(1, torch.tensor(option, device=log_probs.device)[:, None]).sum())


@contextmanager
def _own_attention(student: Student) -> Iterator[None]:
    student.text_model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        use_tree_attention(student.text_model)


def _dtype(student: Student, autocast: bool) -> torch.dtype:
    """The coarsest type that is computed in; weights in 4 bits are computed with in bfloat16."""
    exact = not autocast and all(parameter.dtype == torch.float32 for parameter in student.parameters())
    return torch.float32 if exact else torch.bfloat16


def _facts(student: Student, autocast: bool) -> dict[str, Any]:
    """All that the outcome may depend on."""
    device = next(student.parameters()).device
    code = hashlib.sha256()
    for room in ("students", "trees"):
        for path in sorted((Path(__file__).parents[1] / room).glob("*.py")):
            code.update(path.read_bytes())
    return {
        "machine": platform.node(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"a {platform.machine()} CPU",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "code": code.hexdigest()[:16],
        "student": student.name,
        "family": student.family,
        "adapter": student.has_adapter,
        "attention": CLIP_TREES,
        "dtype": str(_dtype(student, autocast)).removeprefix("torch."),
    }
