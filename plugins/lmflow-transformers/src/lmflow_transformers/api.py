"""The public interface of the torch runtime, for plugins that build on it; everything else is private."""

from lmflow_transformers.attention import AttentionInputs, register_attention, takes_attention_mask, using_attention
from lmflow_transformers.batches import Batch, collate
from lmflow_transformers.caching import for_decoding
from lmflow_transformers.devices import peak_memory_bytes
from lmflow_transformers.export import HuggingFaceExporter
from lmflow_transformers.isolation import isolates_sequences
from lmflow_transformers.likelihood.head import Head, HeadGradients, head_is_plain
from lmflow_transformers.likelihood.network import hidden_states, sequence_logprobs, summed_cross_entropy
from lmflow_transformers.linear import few_rows_are_quick
from lmflow_transformers.loading import check_folder, forget_quantisation, save_network
from lmflow_transformers.models import CausalModel, CausalModelLoader
from lmflow_transformers.options import SamplingOptions
from lmflow_transformers.rotary import follows_length
from lmflow_transformers.sampling import logits_processors, sample_tokens, token_logprob
from lmflow_transformers.training.job import Rollout, TorchJob
from lmflow_transformers.training.loss import Loss, LossOutput, Mean
from lmflow_transformers.training.optimizers import AdamW, parameter_groups, torch_groups
from lmflow_transformers.training.run import train
from lmflow_transformers.tuners import FullTuner, with_master_weights
from lmflow_transformers.writing import refusals_as_os_errors

__all__ = [
    "AdamW",
    "AttentionInputs",
    "Batch",
    "CausalModel",
    "CausalModelLoader",
    "FullTuner",
    "Head",
    "HeadGradients",
    "HuggingFaceExporter",
    "Loss",
    "LossOutput",
    "Mean",
    "Rollout",
    "SamplingOptions",
    "TorchJob",
    "check_folder",
    "collate",
    "few_rows_are_quick",
    "follows_length",
    "for_decoding",
    "forget_quantisation",
    "head_is_plain",
    "hidden_states",
    "isolates_sequences",
    "logits_processors",
    "parameter_groups",
    "peak_memory_bytes",
    "refusals_as_os_errors",
    "register_attention",
    "sample_tokens",
    "save_network",
    "sequence_logprobs",
    "summed_cross_entropy",
    "takes_attention_mask",
    "token_logprob",
    "torch_groups",
    "train",
    "using_attention",
    "with_master_weights",
]
