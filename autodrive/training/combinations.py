"""Settings of a training that contradict each other, each alone being right: refused early, with both keys."""

from collections.abc import Mapping
from dataclasses import dataclass

from autodrive.errors import InputError
from autodrive.students.towers import TOWERS, Tower
from autodrive.students.tuning import Tuning
from autodrive.training.strategies import StrategyKind

# Lightning would hold the weights themselves in 16 bits.
IN_16_BITS = ("bf16-true", "16-true")
CUTTING = ("fsdp", "deepspeed_zero2", "deepspeed_zero3")  # up what an optimiser or a layer holds in a form of its own


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
        strategy: How several processes take steps together.
        optimizer: Full name of the optimiser's class.
    """

    tuning: Tuning
    rank: int | None
    frozen: tuple[Tower, ...]
    tower_lr: Mapping[Tower, float]
    precision: str
    from_scratch: str | None
    strategy: StrategyKind
    optimizer: str

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
        self._check_strategy()
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

    def _check_strategy(self) -> None:
        if self.strategy not in CUTTING:
            return
        strategy, fix = f"strategy={self.strategy}", "give strategy=ddp"
        if self.tuning.kind.startswith("q"):
            message = f"adapter={self.tuning.kind}: {strategy} would cut up 4-bit weights, whose scales stay behind"
            raise InputError(f"{message}; {fix}, or adapter={self.tuning.kind[1:]}")
        if self.optimizer.startswith("bitsandbytes."):
            name = self.optimizer.rpartition(".")[2]
            message = f"optimizer={name}: {strategy} would cut up its 8-bit states, which it does not know how to join"
            raise InputError(f"{message}; {fix}, or optimizer=adamw")
        if self.precision == "64-true":
            raise InputError(f"trainer.precision=64-true: {strategy} computes in float32; {fix}, or precision=32-true")
