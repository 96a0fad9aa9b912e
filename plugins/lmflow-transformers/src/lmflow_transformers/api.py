"""The public interface of the torch runtime, for plugins that build on it; everything else is private."""

from lmflow_transformers.attention import apart, heeds_masks, register_attention
from lmflow_transformers.caching import with_cache
from lmflow_transformers.devices import peak_memory_bytes
from lmflow_transformers.export import HuggingFaceExporter
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

__all__ = [
    "CausalModel",
    "CausalModelLoader",
    "FullTuner",
    "HuggingFaceExporter",
    "SamplingOptions",
    "adamw",
    "apart",
    "check_folder",
    "drawn",
    "follows_length",
    "forget_quantisation",
    "heeds_masks",
    "lay_out",
    "logits_processors",
    "peak_memory_bytes",
    "register_attention",
    "save_network",
    "token_logprob",
    "train_with_trainer",
    "with_cache",
]
