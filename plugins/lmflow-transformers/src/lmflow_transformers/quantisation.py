"""Linear layers that bitsandbytes quantises while a network is loaded (arXiv:2208.07339, arXiv:2305.14314).

The head and all that is no linear layer stay as they are.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from lmflow_core.api import LoadPlan, Quantization, RequestError, how_to_install

_LIBRARY = "bitsandbytes"
_FORMS = ("nf4", "fp4", "int8")
_COMPUTE_DTYPES = ("auto", "float32", "bfloat16", "float16")
# Weights in the order of bitsandbytes' own kernel for processors have no backward pass, and are multiplied in bfloat16.
_REORDERS = "support_avx512bf16_for_cpu"


def check_quantisation(reference: str, plan: LoadPlan, config: Any, *, from_gguf: bool) -> None:
    """Check that a model can be quantised as its plan says.

    Args:
        reference: what the user called the model.
        plan: how it is to be loaded.
        config: the model's own configuration.
        from_gguf: whether the weights come from a GGUF file.

    Raises:
        RequestError: it cannot; the message tells why, and what would do.
    """
    asked = plan.quantization
    if asked is None:
        return
    if asked.form not in _FORMS:
        raise RequestError(f"{reference}: weights cannot be loaded as {asked.form}; the forms are {', '.join(_FORMS)}")
    if asked.compute_dtype not in _COMPUTE_DTYPES:
        raise RequestError(f"{reference}: weights cannot be multiplied in {asked.compute_dtype}")
    if from_gguf:
        raise RequestError(
            f"{reference}: weights from a GGUF file cannot be quantised as {asked.form}: "
            "lmflow export --format huggingface writes a model that can"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise RequestError(f"{reference} is quantised already, and cannot be quantised as {asked.form} as well")
    if plan.sharded:
        raise RequestError(f"{reference}: weights quantised as {asked.form} cannot be spread over processes")
    if importlib.util.find_spec(_LIBRARY) is None:
        mend = how_to_install("lmflow-transformers", "quantization")
        raise RequestError(f"weights quantised as {asked.form} need {_LIBRARY}, which is not installed: {mend}")


def quantised_by(asked: Quantization, dtype: torch.dtype, unquantised: Sequence[str] = ()) -> BitsAndBytesConfig:
    """Return what transformers quantises by.

    Args:
        asked: the form.
        dtype: number format of the weights that are not quantised.
        unquantised: names of modules that stay as they are with all within; transformers' choice where empty.
    """
    # transformers takes them for patterns that begin where a module's whole name does.
    left = [rf"(?:.*\.)?{re.escape(name)}" for name in unquantised] or None
    if asked.form == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=left)
    return BitsAndBytesConfig(
        llm_int8_skip_modules=left,
        load_in_4bit=True,
        bnb_4bit_quant_type=asked.form,
        bnb_4bit_use_double_quant=asked.double,
        bnb_4bit_compute_dtype=dtype if asked.compute_dtype == "auto" else getattr(torch, asked.compute_dtype),
    )


def keep_trainable(network: torch.nn.Module) -> None:
    """Keep bitsandbytes from reordering the weights of a network on a processor at a pass outside of training."""
    for module in network.modules():
        if hasattr(module, _REORDERS):
            setattr(module, _REORDERS, False)
