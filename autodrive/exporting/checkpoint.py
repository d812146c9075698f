"""Writes a student as files that plain libraries read, and reads them back with those libraries alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedModel

from autodrive.errors import InputError
from autodrive.students.bases import Base
from autodrive.students.quantisation import is_quantised
from autodrive.students.student import DTYPES, Student
from autodrive.students.towers import TOWERS

Form = Literal["merged", "adapter"]


@dataclass(frozen=True)
class ExportFormat:
    """What is written.

    Attributes:
        form: `merged`, a whole checkpoint, or `adapter`, the adapter alone in peft's layout.
        dtype: Type of the weights of a whole checkpoint; None: that of the student. An adapter's are float32.
    """

    form: Form
    dtype: Literal["float32", "bfloat16"] | None

    def check(self, student: Student) -> None:
        """Raise InputError for a student that plain libraries cannot read, or a form that it has not."""
        if not isinstance(student.model, PreTrainedModel):
            message = f"ckpt: transformers has no class for {student.family} students, so nothing could be verified"
            raise InputError(f"{message}; take the run's checkpoints/student, in the layout of the family's releases")
        if self.form == "merged":
            return
        fix = "choose form=merged"
        if self.dtype is not None:
            raise InputError(f"dtype={self.dtype}: form=adapter is always float32; leave it out")
        if not student.has_adapter:
            raise InputError(f"form=adapter: the student has no adapter, all of it was trained; {fix}")
        if any(is_quantised(student.towers.linear_layers(tower)) for tower in TOWERS):
            message = (
                "form=adapter: it was trained on a base in 4 bits, on the checkpoint itself it says something else"
            )
            raise InputError(f"{message}; {fix}, which holds the numbers that the 4 bits stand for")

    def name_for(self, student: Student) -> str:
        """Name of the type in which the weights are written."""
        if self.form == "adapter":
            return "float32"
        return self.dtype or next(name for name, dtype in DTYPES.items() if dtype == student.dtype)


@torch.no_grad()
def round_weights(student: Student, dtype: torch.dtype) -> None:
    """Merge the adapter, if there is one, and round all weights to a type; they stay float32 in memory."""
    student.merge()
    for parameter in student.model.parameters():
        parameter.copy_(parameter.to(dtype).float())


def write_checkpoint(student: Student, folder: Path, export: ExportFormat) -> None:
    """Write a merged and rounded student, or the adapter of one that is neither, into an empty folder."""
    if export.form == "adapter":
        from autodrive.students.adapters import write_adapter

        base = student.base
        if base is not None and Path(base.source).is_dir():  # by its name only: files travel, and paths name people
            base = Base(Path(base.source).name)
        write_adapter(student.model, folder, base)
        return
    cast(Any, student.model).to(DTYPES[export.name_for(student)])
    student.write(folder, student.base_weights())


def read_plainly(folder: Path, student_base: str | None, device: torch.device) -> nn.Module:
    """Read exported files as someone without this project does, in float32.

    Args:
        folder: What `write_checkpoint` wrote.
        student_base: Folder of the base of an adapter; None for a whole checkpoint.
        device: Where to.
    """
    source = folder if student_base is None else student_base
    model = AutoModelForImageTextToText.from_pretrained(
        str(source), dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    if student_base is not None:
        model = PeftModel.from_pretrained(model, str(folder))
    return cast(nn.Module, model).to(device)
