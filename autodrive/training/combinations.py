"""Settings of a training that contradict each other, each alone being right: refused early, with both keys."""

from collections.abc import Mapping
from dataclasses import dataclass

from autodrive.errors import InputError
from autodrive.students.towers import TOWERS, Tower
from autodrive.students.tuning import Tuning

# Lightning would hold the weights themselves in 16 bits.
IN_16_BITS = ("bf16-true", "16-true")


@dataclass(frozen=True)
class TrainingChoice:
    """What a configuration says about what is trained, and how exactly.

    Attributes:
        tuning: All weights, or an adapter.
        rank: Rank of the adapter's matrices, as the root of the configuration has it.
        frozen: Towers of which nothing is to be trained.
        tower_lr: Learning rates of towers that have one of their own.
        precision: Precision of the trainer, in Lightning's words.
        from_scratch: Name of the student if no file holds its weights yet.
    """

    tuning: Tuning
    rank: int | None
    frozen: tuple[Tower, ...]
    tower_lr: Mapping[Tower, float]
    precision: str
    from_scratch: str | None

    def check(self) -> None:
        """Raise InputError for settings that contradict each other, or of which one would match nothing."""
        adapter = f"adapter={self.tuning.kind}"
        if self.tuning.kind == "full" and self.rank is not None:
            raise InputError(f"rank={self.rank}: {adapter} has no matrices of that rank; choose adapter=lora or dora")
        if self.tuning.kind.startswith("q") and self.from_scratch:
            message = f"{adapter}: student={self.from_scratch} draws its weights, and 4-bit weights are not saved"
            raise InputError(f"{message}; give student_from=<run>, or adapter={self.tuning.kind[1:]}")
        if self.precision in IN_16_BITS:
            message = (
                f"trainer.precision={self.precision}: optimizer steps of lr would be rounded away in 16-bit weights"
            )
            raise InputError(f"{message}; give trainer.precision=bf16-mixed, which keeps what is trained in float32")
        if self.precision == "16-mixed":
            message = "trainer.precision=16-mixed: method.max_grad_norm would clip gradients that are scaled up"
            raise InputError(f"{message}; give trainer.precision=bf16-mixed")
        if self.tuning.kind != "full":
            for tower in self.frozen:
                if self.tuning.kind != "given" and self.tuning.reaches(tower):
                    key = f"adapter.targets.{tower}"
                    raise InputError(f"freeze.{tower}=true: {key} trains adapters there; empty one of the two")
        elif len(self.frozen) == len(TOWERS):
            keys = ", ".join(f"freeze.{tower}" for tower in TOWERS)
            raise InputError(f"{keys}: with {adapter} nothing is left to train; set one to false, or choose an adapter")
        for tower, rate in self.tower_lr.items():
            key = f"tower_lr.{tower}={rate:g}"
            if tower in self.frozen:
                raise InputError(f"{key}: freeze.{tower}=true leaves nothing there to train; leave one of them out")
            if not self.tuning.reaches(tower):
                raise InputError(f"{key}: adapter.targets.{tower} is empty, so it would match nothing; leave one out")
