"""What the folder of an adapter must be before peft opens it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lmflow_core.api import ModelError, printable
from lmflow_transformers.api import check_files, read_object, tensor_entries

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# peft imports the modules, or opens the further adapters, that these name.
_REACH_OUT = ("megatron_config", "arrow_config")
# Adapters that start from the weights (PiSSA) work that out anew when they are put on.
_ITERATIONS = re.compile(r"pissa_niter_(\d+)")
_MOST_ITERATIONS = 100


def check_adapter(folder: Path) -> None:
    """Check that a folder holds a LoRA adapter as peft writes it, whole and in safetensors.

    Raises:
        ModelError: something is missing, damaged, absurd, or reaches out of the folder.
    """
    check_files(folder)
    file = folder / WEIGHTS
    if not file.is_file():
        unsafe = sorted(found.name for found in folder.glob("*.bin"))
        hint = f" ({', '.join(unsafe)} is pickled, which LMFlow does not read: convert it)" if unsafe else ""
        raise ModelError(f"{folder} holds an adapter without weights: no {WEIGHTS}{hint}")
    numbers = sum(math.prod(entry.shape) for entry in tensor_entries(file))
    _check_config(folder / CONFIG, read_object(folder / CONFIG), numbers)


def _check_config(file: Path, config: Mapping[str, Any], numbers: int) -> None:
    if config.get("peft_type") != "LORA":
        kind = printable(repr(config.get("peft_type")), 80)
        raise ModelError(f"{file}: the adapter is of the kind {kind}, and LMFlow puts on those of the kind 'LORA'")
    reaching = [name for name in _REACH_OUT if config.get(name)]
    if reaching:
        raise ModelError(f"{file}: {reaching[0]} is set, by which peft would import what the file names: remove it")
    iterations = _ITERATIONS.fullmatch(str(config.get("init_lora_weights")))
    if iterations and len(iterations[1]) > 2 and int(iterations[1][:9]) > _MOST_ITERATIONS:
        raise ModelError(f"{file}: init_lora_weights asks for more than {_MOST_ITERATIONS} iterations, which never end")
    patterns = config.get("rank_pattern") or {}
    ranks: Iterable[Any] = [config.get("r"), *(patterns.values() if isinstance(patterns, dict) else [patterns])]
    for rank in ranks:
        if type(rank) is not int or not 1 <= rank <= numbers:
            shown = printable(repr(rank), 40)
            raise ModelError(f"{file}: the rank is {shown}; it must be from 1 to what the weights beside it hold")
