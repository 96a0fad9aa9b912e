"""The public interface of the torch runtime, for plugins that build on it; everything else is private."""

from lmflow_transformers.attention import apart, heeds_masks, register_attention, using_attention
from lmflow_transformers.caching import for_decoding
from lmflow_transformers.devices import peak_memory_bytes
from lmflow_transformers.export import HuggingFaceExporter
from lmflow_transformers.isolation import keeps_apart
from lmflow_transformers.linear import few_rows_are_quick
from lmflow_transformers.loss import Head, HeadGradients, head_is_plain
from lmflow_transformers.models import (
    CausalModel,
    CausalModelLoader,
    check_folder,
    forget_quantisation,
    save_network,
)
from lmflow_transformers.options import SamplingOptions
from lmflow_transformers.packing import lay_out
from lmflow_transformers.rotary import follows_length
from lmflow_transformers.sampling import drawn, logits_processors, token_logprob
from lmflow_transformers.training.optimizers import adamw
from lmflow_transformers.training.trainer import train_with_trainer
from lmflow_transformers.tuners import FullTuner
from lmflow_transformers.writing import refusals_as_os_errors

__all__ = [
    "CausalModel",
    "CausalModelLoader",
    "FullTuner",
    "Head",
    "HeadGradients",
    "HuggingFaceExporter",
    "SamplingOptions",
    "adamw",
    "apart",
    "check_folder",
    "drawn",
    "few_rows_are_quick",
    "follows_length",
    "for_decoding",
    "forget_quantisation",
    "head_is_plain",
    "heeds_masks",
    "keeps_apart",
    "lay_out",
    "logits_processors",
    "peak_memory_bytes",
    "refusals_as_os_errors",
    "register_attention",
    "save_network",
    "token_logprob",
    "train_with_trainer",
    "using_attention",
]
