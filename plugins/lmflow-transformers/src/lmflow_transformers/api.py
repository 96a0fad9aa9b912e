"""The public interface of the torch runtime, for plugins that build on it; everything else is private."""

from lmflow_transformers.attention import AttentionInputs, register_attention, takes_attention_mask, using_attention
from lmflow_transformers.batches import Batch, collate
from lmflow_transformers.batching.batch import SharedBatch, open_shared_batch
from lmflow_transformers.batching.choosing import TokenChooser, token_logprob
from lmflow_transformers.batching.layers import Seen
from lmflow_transformers.batching.texts import CacheLayout, TextCache, WholeText
from lmflow_transformers.batching.turns import Chooser, SharedBatchDecoder
from lmflow_transformers.caching import for_decoding
from lmflow_transformers.devices import peak_memory_bytes, pick_device, pick_dtype
from lmflow_transformers.export import HuggingFaceExporter
from lmflow_transformers.folder_check import check_files, check_folder, read_object, weight_files
from lmflow_transformers.isolation import isolates_sequences
from lmflow_transformers.likelihood.head import Head, HeadGradients, head_is_plain
from lmflow_transformers.likelihood.network import (
    hidden_states,
    labelled_logprobs,
    sequence_logprobs,
    summed_cross_entropy,
)
from lmflow_transformers.linear import few_rows_are_quick
from lmflow_transformers.loading import forget_quantisation, save_network
from lmflow_transformers.models import CausalModel, CausalModelLoader
from lmflow_transformers.options import SamplingOptions
from lmflow_transformers.planning.sketch import SketchedModel, sketch
from lmflow_transformers.processes import joined_processes
from lmflow_transformers.processing import check_sampling, logits_processors
from lmflow_transformers.regression import check_values, sequence_values
from lmflow_transformers.rotary import follows_length
from lmflow_transformers.safetensors_head import TensorEntry, tensor_entries
from lmflow_transformers.sampling import SamplingDecoder, chosen_tokens
from lmflow_transformers.training.job import Rollout, TorchJob
from lmflow_transformers.training.leaving_out import LeftOut, Selected, check_different, keep_useful
from lmflow_transformers.training.loss import Loss, LossOutput, Mean
from lmflow_transformers.training.measuring import Measure, measure_sequences, measure_tokens
from lmflow_transformers.training.optimizers import AdamW, parameter_groups, torch_groups
from lmflow_transformers.training.run import train
from lmflow_transformers.training.sampled.answering import Sampling
from lmflow_transformers.training.sampled.lessons import Lesson, Measurement, Teaching
from lmflow_transformers.training.sampled.rounds import SampledRounds, for_rounds, steps_of_round
from lmflow_transformers.training.sampled.samples import Sample, places_by_prompt
from lmflow_transformers.tuners import FullTuner, freeze_other_parts, with_master_weights
from lmflow_transformers.vocabulary import check_vocabulary
from lmflow_transformers.writing import refusals_as_os_errors

__all__ = [
    "AdamW",
    "AttentionInputs",
    "Batch",
    "CacheLayout",
    "CausalModel",
    "CausalModelLoader",
    "Chooser",
    "FullTuner",
    "Head",
    "HeadGradients",
    "HuggingFaceExporter",
    "LeftOut",
    "Lesson",
    "Loss",
    "LossOutput",
    "Mean",
    "Measure",
    "Measurement",
    "Rollout",
    "Sample",
    "SampledRounds",
    "Sampling",
    "SamplingDecoder",
    "SamplingOptions",
    "Seen",
    "Selected",
    "SharedBatch",
    "SharedBatchDecoder",
    "SketchedModel",
    "Teaching",
    "TensorEntry",
    "TextCache",
    "TokenChooser",
    "TorchJob",
    "WholeText",
    "check_different",
    "check_files",
    "check_folder",
    "check_sampling",
    "check_values",
    "check_vocabulary",
    "chosen_tokens",
    "collate",
    "few_rows_are_quick",
    "follows_length",
    "for_decoding",
    "for_rounds",
    "forget_quantisation",
    "freeze_other_parts",
    "head_is_plain",
    "hidden_states",
    "isolates_sequences",
    "joined_processes",
    "keep_useful",
    "labelled_logprobs",
    "logits_processors",
    "measure_sequences",
    "measure_tokens",
    "open_shared_batch",
    "parameter_groups",
    "peak_memory_bytes",
    "pick_device",
    "pick_dtype",
    "places_by_prompt",
    "read_object",
    "refusals_as_os_errors",
    "register_attention",
    "save_network",
    "sequence_logprobs",
    "sequence_values",
    "sketch",
    "steps_of_round",
    "summed_cross_entropy",
    "takes_attention_mask",
    "tensor_entries",
    "token_logprob",
    "torch_groups",
    "train",
    "using_attention",
    "weight_files",
    "with_master_weights",
]
