"""DeepSpeed's ZeRO under Lightning: rows one by one, on CPUs as well, and checkpoints as one process writes them."""

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch.plugins.precision import DeepSpeedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy
from lightning.pytorch.strategies import Strategy as LightningStrategy
from torch.optim import Optimizer


class RowsAsTheyAre(DeepSpeedPrecision):
    """Float32 for DeepSpeed, whose own mixed precision is another arithmetic than that of the other strategies.

    Batches are left alone, which hold frozen records and no numbers to convert.

    Args:
        autocast: The type that forward passes compute in, if it is not that of the weights.
    """

    def __init__(self, autocast: torch.dtype | None) -> None:
        super().__init__("32-true")
        self.autocast = autocast

    def forward_context(self) -> AbstractContextManager[Any]:
        """What forward passes are made in."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return nullcontext() if self.autocast is None else torch.autocast(device, self.autocast)

    def convert_input(self, data: Any) -> Any:
        """The batch itself."""
        return data


class ZeroStrategy(DeepSpeedStrategy):
    """Lightning's strategy for DeepSpeed, without what would break steps of several rows.

    Args:
        stage: 2 or 3.
        max_grad_norm: What the engine scales gradients down to.
    """

    def __init__(self, stage: Literal[2, 3], max_grad_norm: float) -> None:
        self.stage = stage
        super().__init__(
            stage=stage,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_clipping": max_grad_norm,
                "zero_allow_untested_optimizer": True,
                "zero_optimization": {"stage": stage, "contiguous_gradients": True, "overlap_comm": True},
            },
        )

    @property
    def precision_plugin(self) -> Precision:
        """What converts weights and batches."""
        return self._precision_plugin  # pyright: ignore[reportReturnType]

    @precision_plugin.setter
    def precision_plugin(self, plugin: Precision | None) -> None:
        precision = "32-true" if plugin is None else plugin.precision
        self._precision_plugin = RowsAsTheyAre(torch.bfloat16 if precision == "bf16-mixed" else None)

    def setup_environment(self) -> None:
        """Lightning would refuse anything but CUDA, and DeepSpeed runs on CPUs."""
        DDPStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        """Tell DeepSpeed of the process group that there is."""
        import deepspeed

        self.set_world_ranks()
        deepspeed.init_distributed(auto_mpi_discovery=False, dist_init_required=False)

    @property
    def root_device(self) -> torch.device:
        """DeepSpeed wants an index of every device."""
        device = DDPStrategy.root_device.fget(self)  # pyright: ignore[reportOptionalCall]
        return torch.device("cpu", 0) if device.type == "cpu" else device

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a step outside of the engine's forward pass, in which Lightning would take it: each row has its own."""
        assert self.lightning_module is not None
        return self.lightning_module.training_step(*args, **kwargs)

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """See `training_step`."""
        assert self.lightning_module is not None
        return self.lightning_module.validation_step(*args, **kwargs)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether `load_optimizer_state_dict` is called."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The trained weights, whole, on the CPU of rank 0; other ranks have none."""
        from deepspeed.utils import safe_get_full_fp32_param

        return {name: self._kept(safe_get_full_fp32_param(value)) for name, value in self._trained().items()}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take over the weights that a checkpoint has, in what is computed with and in what is optimised."""
        import deepspeed

        for name, parameter in self._trained().items():
            value = checkpoint["state_dict"][name].to(self.root_device)
            self._set(parameter, value)
            # Rank 0 writes, and all get it.
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0), torch.no_grad():
                if self.stage == 2 or self.is_global_zero:
                    parameter.copy_(value)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state as one process has it, on rank 0."""
        from deepspeed.utils import safe_get_full_optimizer_state

        inner = self._zero.optimizer
        known = next(iter(inner.state.values()), {})
        scalars = {name: value for name, value in known.items() if not _is_moment(value)}
        moments = [name for name, value in known.items() if _is_moment(value)]
        if known:
            self._link_states()
        groups, state = [], {}
        for group, parameters in zip(inner.param_groups, self._groups(), strict=True):
            places = list(range(len(state), len(state) + len(parameters)))
            for place, parameter in zip(places, parameters, strict=True):
                whole = {name: self._kept(safe_get_full_optimizer_state(parameter, name)) for name in moments}
                # Each its own: an optimizer counts steps in place.
                state[place] = {**copy.deepcopy(scalars), **whole}
            groups.append({**group, "params": places})
        return {"state": state, "param_groups": groups}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Cut up what `optimizer_state` put together."""
        (given,) = checkpoint["optimizer_states"]
        inner = self._zero.optimizer
        for group, settings in zip(inner.param_groups, given["param_groups"], strict=True):
            group.update({key: value for key, value in settings.items() if key != "params"})
        known = next(iter(given["state"].values()), {})
        for flat in self._flat():  # states are made at the first step, which is still to come
            inner.state[flat] = {
                name: torch.zeros_like(flat) if _is_moment(value) else copy.deepcopy(value)
                for name, value in known.items()
            }
        self._link_states()
        parameters = [parameter for group in self._groups() for parameter in group]
        for place, parameter in enumerate(parameters):
            for name, value in given["state"].get(place, {}).items():
                if _is_moment(value):
                    self._set(parameter, value, name)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint as one process does."""
        LightningStrategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint as one process does."""
        return LightningStrategy.load_checkpoint(self, checkpoint_path, weights_only)

    @property
    def _zero(self) -> Any:
        """DeepSpeed's optimizer, around the one that was configured."""
        return cast(Any, self.model).optimizer

    def _link_states(self) -> None:
        """Let DeepSpeed find the states of every parameter.

        Stage 2 does so itself after the step of its first group, when those of the other groups are not there yet.
        """
        if self.stage == 2:
            self._zero._hp_optimizer_states_linked = False
            self._zero._lazy_init_hp_params_optimizer_state()

    def _flat(self) -> list[torch.Tensor]:
        """This rank's parts of the weights as DeepSpeed optimises them, joined."""
        return (
            self._zero.single_partition_of_fp32_groups if self.stage == 2 else self._zero.fp32_partitioned_groups_flat
        )

    def _groups(self) -> list[list[torch.nn.Parameter]]:
        """The trained parameters in the order in which one process's optimizer has them, by group."""
        assert self.lightning_module is not None
        return cast(Any, self.lightning_module).trained_groups

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        assert self.lightning_module is not None
        return {name: value for name, value in self.lightning_module.named_parameters() if value.requires_grad}

    def _kept(self, tensor: torch.Tensor | None) -> torch.Tensor:
        assert tensor is not None, "every trained parameter has a part that is optimised"
        return tensor.detach().cpu().clone() if self.is_global_zero else torch.empty(0)

    def _set(self, parameter: torch.nn.Parameter, value: torch.Tensor, state: str | None = None) -> None:
        """Put this rank's part of a value where DeepSpeed optimises it: the weight, or a state of it."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        value = value.to(self.root_device)
        if self.stage == 2 and state is None:
            safe_set_full_fp32_param(parameter, value)
        elif self.stage == 2:
            safe_set_full_optimizer_state(parameter, value, state)
        else:
            # DeepSpeed's own function fails where the last rank's part is filled up.
            part, _ = self._zero._get_fp32_opt_state_partition(
                parameter, release_swap_buffers=False, optim_state_key=state
            )
            begin = part.numel() * self.global_rank
            own = value.flatten()[begin : begin + part.numel()]
            part.data[: own.numel()].copy_(own)


def gathered(model: torch.nn.Module, kept: bool) -> dict[str, torch.Tensor]:
    """All weights of a model that stage 3 has cut up, one after the other, on the CPU; all ranks must call it.

    Args:
        model: The model.
        kept: Whether this rank keeps them.
    """
    import deepspeed

    found = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        with deepspeed.zero.GatheredParameters([parameter]):
            found[name] = parameter.detach().cpu().clone() if kept else torch.empty(0)
    return found


def _is_moment(value: Any) -> bool:
    """Whether a state of an optimizer has a number for each of a parameter."""
    return isinstance(value, torch.Tensor) and value.numel() > 1
