"""Options of the engine ``deepspeed``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmflow_core.api import option
from lmflow_transformers.options import LaunchOptions

_PLACES = ("none", "cpu", "nvme")


@dataclass(frozen=True, kw_only=True)
class DeepSpeedOptions(LaunchOptions):
    """What is spread over the processes, and where it waits while it is not needed."""

    deepspeed: Path | None = option(
        None, help="A configuration of DeepSpeed, in JSON; its 'auto' values are those of the run."
    )
    zero_stage: int | None = option(
        None,
        help="What is spread: 0 nothing, 1 optimizer state, 2 gradients too, 3 weights too; 2 without a file.",
        minimum=0,
        maximum=3,
    )
    zero_offload_optimizer: str | None = option(
        None, help="Where optimizer state lives: none is beside the weights.", choices=_PLACES
    )
    zero_offload_parameters: str | None = option(
        None, help="Where weights wait that no layer needs at the moment, with stage 3.", choices=_PLACES
    )
    zero_nvme_path: Path | None = option(None, help="The folder on a fast disk that nvme means.")
