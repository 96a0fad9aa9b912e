"""The engine ``deepspeed``: ZeRO (Rajbhandari et al., arXiv:1910.02054) on the processes of a job."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from lmflow_core.api import LoadPlan, Placement, RequestError, World
from lmflow_deepspeed.config import configuration
from lmflow_deepspeed.gathering import gathered
from lmflow_deepspeed.options import DeepSpeedOptions
from lmflow_deepspeed.placing import placed
from lmflow_deepspeed.surroundings import compile_nothing, surroundings, tell_accelerate
from lmflow_transformers.api import CausalModel, joined_processes, pick_device, pick_dtype


class DeepSpeedEngine:
    """Spreads optimizer state, gradients and weights over the processes, as the stage of ZeRO says."""

    def __init__(self, options: DeepSpeedOptions | None = None) -> None:
        """Read the configuration.

        Raises:
            LmflowError: options contradict each other or the file, or the file is none of DeepSpeed's.
        """
        self._options = options or DeepSpeedOptions()
        self._config = configuration(self._options)
        self._rank = 0
        self._sharding: Any = None

    @property
    def _stage(self) -> int:
        return int(self._config["zero_optimization"]["stage"])

    @contextmanager
    def start(self) -> Iterator[World]:
        """Join the process group."""
        with surroundings(), joined_processes(self._options, alone=True) as world:
            compile_nothing()
            self._rank = world.rank
            yield world
            self._sharding = None

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Ask for weights that DeepSpeed places, in the number format it computes with: it keeps float32 beside them.

        Raises:
            RequestError: the weights cannot be spread so.
        """
        from deepspeed.accelerator import get_accelerator

        device = pick_device(plan.device)
        accelerator = get_accelerator().device_name()
        if device.type != accelerator:
            raise RequestError(
                f"--engine deepspeed trains on the {accelerator} of this machine, and --device is {device.type}: leave "
                f"out --device, or set DS_ACCELERATOR={device.type}"
            )
        self._check_form(plan)
        computed = plan.compute_dtype or str(pick_dtype(plan.dtype, device)).removeprefix("torch.")
        self._choose_format(computed)
        if self._stage == 3:
            self._shard_what_is_loaded()
        return self._asked(plan, computed)

    def _asked(self, plan: LoadPlan, computed: str) -> LoadPlan:
        return dataclasses.replace(
            plan,
            dtype=computed,
            compute_dtype=None,
            sharded=self._stage == 3,
            sharded_state=self._stage > 0 or computed != "float32",
        )

    def placement(self, plan: LoadPlan, processes: int) -> Placement:
        """Tell what each process holds by the stage of ZeRO.

        Raises:
            RequestError: the weights cannot be spread so.
        """
        self._check_form(plan)
        computed = plan.compute_dtype or str(pick_dtype(plan.dtype, pick_device(plan.device))).removeprefix("torch.")
        return placed(self._config["zero_optimization"], self._asked(plan, computed), processes)

    def _check_form(self, plan: LoadPlan) -> None:
        if plan.quantization is not None and self._stage == 3:
            raise RequestError(
                f"ZeRO stage 3 cannot spread weights of the form {plan.quantization.form}: take --zero-stage 2 or "
                "leave out the quantisation"
            )

    def _choose_format(self, computed: str) -> None:
        """Tell DeepSpeed the number format of the run.

        Raises:
            RequestError: a file says otherwise.
        """
        for key, name in (("fp16", "float16"), ("bf16", "bfloat16")):
            part = self._config.setdefault(key, {})
            wanted = computed == name
            if part.get("enabled", "auto") not in ("auto", wanted):
                raise RequestError(
                    f"--deepspeed: {key}.enabled is {part['enabled']} in the file, and the run computes in {computed}: "
                    "give --dtype, or write 'auto' in the file"
                )
            part["enabled"] = wanted

    def _shard_what_is_loaded(self) -> None:
        from transformers.integrations import HfDeepSpeedConfig

        kept = {key: self._config[key] for key in ("zero_optimization", "fp16", "bf16")}
        # It is in force for as long as it is held.
        self._sharding = HfDeepSpeedConfig({**kept, "train_micro_batch_size_per_gpu": 1})

    def spread(self, module: Any) -> None:
        """Leave it to DeepSpeed, which spreads weights as they are read and the rest when training begins."""

    def all_gather(self, value: object) -> list[Any]:
        """Return every process's value."""
        values: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(values, value)
        return values

    def full_weights(self, model: CausalModel) -> Mapping[str, Any] | None:
        """Return the weights gathered in the main process; None below stage 3, where each process has them all."""
        return gathered(model.network, keep=self._rank == 0) if self._stage == 3 else None

    def trainer_arguments(self) -> Mapping[str, Any]:
        """Give the trainer the configuration. DeepSpeed finds the device itself, also where it is a processor."""
        tell_accelerate()
        formats = {key: self._config.get(key, {}).get("enabled") is True for key in ("fp16", "bf16")}
        state = {"use_configured_state": True}
        return {
            "deepspeed": self._config,
            "use_cpu": not torch.cuda.is_available(),
            "accelerator_config": state,
            **formats,
        }
