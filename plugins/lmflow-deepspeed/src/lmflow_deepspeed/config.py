"""DeepSpeed's configuration: from options, or from a file that options may not contradict."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmflow_core.api import OptionError, RequestError
from lmflow_deepspeed.options import DeepSpeedOptions

# What the run decides unless a file says the same.
_OF_THE_RUN = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
)
_INSTEAD = {
    "scheduler": "--lr-scheduler-type and --warmup-ratio make the schedule",
    "amp": "--dtype chooses the number format",
    "tensor_parallel": "weights are spread by ZeRO alone",
    "compression_training": "it changes what is trained",
    "data_efficiency": "it changes what is trained on",
    "curriculum_learning": "it changes what is trained on",
}
_ADAMW = ("adam", "adamw")
_BY_STAGE_3 = ("offload_param", "zero_quantized_weights", "zero_hpz_partition_size")


def configuration(options: DeepSpeedOptions) -> dict[str, Any]:
    """Return the configuration of a run, whose ``auto`` values are still to be filled.

    Raises:
        OptionError: options contradict each other or the file.
        RequestError: the file cannot be read, is no JSON, or asks for what the run decides otherwise.
    """
    given = {} if options.deepspeed is None else read(options.deepspeed)
    zero = _object(given, "zero_optimization", options.deepspeed)
    _merge(zero, "stage", options.zero_stage, "--zero-stage", options.deepspeed)
    zero.setdefault("stage", 2 if options.deepspeed is None else 0)
    for key, place, flag in (
        ("offload_optimizer", options.zero_offload_optimizer, "--zero-offload-optimizer"),
        ("offload_param", options.zero_offload_parameters, "--zero-offload-parameters"),
    ):
        _place(zero, key, place, flag, options)
    _check_stage(zero, options)
    for key in _OF_THE_RUN:
        given.setdefault(key, "auto")
    # Optimizers are made by LMFlow; DeepSpeed's own for offloaded state would have to be compiled.
    return {**given, "zero_force_ds_cpu_optimizer": False, "zero_allow_untested_optimizer": True}


def read(file: Path) -> dict[str, Any]:
    """Return what a configuration file says, without what LMFlow decides.

    Raises:
        RequestError: the file cannot be read, is no JSON, or asks for what the run decides otherwise.
    """
    where = f"--deepspeed {file}"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"{where} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where} is not JSON: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RequestError(f"{where} must hold an object, not a {type(content).__name__}")
    for key, reason in _INSTEAD.items():
        if key in content:
            raise RequestError(f"{where}: {key}: {reason}; leave it out of the file")
    for problem in _problems_of_optimizer(content.pop("optimizer", {})):
        raise RequestError(f"{where}: {problem}")
    _check_values(content, where)
    return content


def _problems_of_optimizer(optimizer: Any) -> Iterator[str]:
    """Yield what a file says of the optimizer that flags decide; AdamW with ``auto`` values says nothing."""
    if not isinstance(optimizer, Mapping):
        yield "optimizer must be an object"
        return
    name = str(optimizer.get("type", "AdamW"))
    if name.lower() not in _ADAMW:
        yield f"optimizer.type {name}: --optimizer chooses the optimizer; leave it out of the file"
    params = optimizer.get("params", {})
    if not isinstance(params, Mapping):
        yield "optimizer.params must be an object"
        return
    flags = {"lr": "--lr", "betas": "--adam-beta1 and --adam-beta2", "eps": "--adam-epsilon"}
    for key, value in params.items():
        if value != "auto" and key not in ("torch_adam", "adam_w_mode"):
            flag = flags.get(key, "--" + str(key).replace("_", "-"))
            yield f"optimizer.params.{key} is {value!r}: give {flag}, and write 'auto' in the file"


def _check_values(content: Mapping[str, Any], where: str) -> None:
    for key in ("zero_optimization", "fp16", "bf16"):
        if not isinstance(content.get(key, {}), dict):
            raise RequestError(f"{where}: {key} must be an object, not {content[key]!r}")
    stage = content.get("zero_optimization", {}).get("stage", 0)
    if isinstance(stage, bool) or stage not in (0, 1, 2, 3):
        raise RequestError(f"{where}: zero_optimization.stage must be 0, 1, 2 or 3, not {stage!r}")
    for key in _OF_THE_RUN:
        value = content.get(key, "auto")
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise RequestError(f"{where}: {key} must be a number or 'auto', not {value!r}")


def _object(content: dict[str, Any], key: str, file: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = content.setdefault(key, {})
    return found


def _merge(target: dict[str, Any], key: str, value: Any, flag: str, file: Path | None) -> None:
    """Put an option into a part of the configuration.

    Raises:
        OptionError: the file says otherwise.
    """
    if value is None:
        return
    if target.get(key, value) != value:
        raise OptionError(f"{flag} {value}, but {key} is {target[key]!r} in {file}: leave one of them out")
    target[key] = value


def _place(zero: dict[str, Any], key: str, place: str | None, flag: str, options: DeepSpeedOptions) -> None:
    """Say where something waits."""
    kept = zero.get(key, {})
    if not isinstance(kept, dict):
        raise RequestError(f"--deepspeed {options.deepspeed}: zero_optimization.{key} must be an object, not {kept!r}")
    if place is None and kept.get("device", "none") == "none":
        zero.pop(key, None)
        return
    _merge(kept, "device", place, flag, options.deepspeed)
    if kept["device"] == "none":
        zero.pop(key, None)
        return
    if kept["device"] == "nvme" and options.zero_nvme_path is not None:
        _merge(kept, "nvme_path", str(options.zero_nvme_path), "--zero-nvme-path", options.deepspeed)
    if kept["device"] == "nvme" and "nvme_path" not in kept:
        raise OptionError(f"{flag} nvme needs --zero-nvme-path, a folder on a fast disk")
    zero[key] = kept


def _check_stage(zero: Mapping[str, Any], options: DeepSpeedOptions) -> None:
    if "offload_param" in zero and zero["stage"] != 3:
        raise OptionError(f"weights are offloaded by ZeRO stage 3 alone, not by stage {zero['stage']}: --zero-stage 3")
    if "offload_optimizer" in zero and zero["stage"] == 0:
        raise OptionError("optimizer state is offloaded by ZeRO stages 1 to 3: add --zero-stage")
    places = [zero[key]["device"] for key in ("offload_optimizer", "offload_param") if key in zero]
    if options.zero_nvme_path is not None and "nvme" not in places:
        raise OptionError("--zero-nvme-path has no effect without --zero-offload-optimizer nvme or -parameters nvme")
