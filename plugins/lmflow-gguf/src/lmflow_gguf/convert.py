"""Conversion of a model folder to one GGUF file, tensor by tensor."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType
from gguf.quants import quantize

from lmflow_core.api import ModelError, printable
from lmflow_gguf.architectures import (
    Architecture,
    Config,
    Tensor,
    architecture_of,
    check_configuration,
    flat_config,
    layers_of,
    stacked_experts,
)
from lmflow_gguf.checkpoint import stored_tensors
from lmflow_gguf.metadata import write_metadata
from lmflow_gguf.progress import progress
from lmflow_gguf.seeing.families import family_of
from lmflow_gguf.seeing.text import sees, text_config, text_name
from lmflow_gguf.vocabulary import Vocabulary, read_vocabulary, write_vocabulary

logging.getLogger("gguf").setLevel(logging.ERROR)

# The types that need no llama.cpp, with what the file says of itself.
PLAIN_TYPES = {
    "F32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "F16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "BF16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "Q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
_NEVER_NEEDED = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")
_ALWAYS_F32 = (
    gguf.MODEL_TENSOR.FFN_GATE_INP,
    gguf.MODEL_TENSOR.FFN_GATE_INP_SHEXP,
    gguf.MODEL_TENSOR.POS_EMBD,
)


@dataclass(frozen=True)
class Planned:
    """A tensor of the file to be: its name, shape (slowest dimension first), type, and where its values come from."""

    tensor: Tensor
    type: GGMLQuantizationType

    @property
    def nbytes(self) -> int:
        """Bytes in the file, without padding."""
        block, size = gguf.GGML_QUANT_SIZES[self.type]
        return int(np.prod(self.tensor.shape)) // block * size

    def values(self) -> np.ndarray:
        """Return the values as they are written."""
        return quantize(self.tensor.read(), self.type)


@dataclass(frozen=True)
class Source:
    """A model that can be converted: its folder, its configuration and its tokenizer, all in transformers' form.

    The configuration of a model that sees has that of its text in front.
    """

    folder: Path
    name: str
    config: Config
    tokenizer: Any
    chat_template: str | None = None

    @property
    def architecture(self) -> Architecture:
        """What conversion does for it; raises as :func:`architecture_of` does."""
        return architecture_of(self.config)

    @property
    def sees(self) -> bool:
        """Whether it has eyes, which are a file of their own."""
        return sees(self.config)

    def text_name(self, name: str) -> str | None:
        """Return what a tensor or module is called that is of the text; None for any other."""
        return text_name(name) if self.sees else name


def make_source(folder: Path, name: str, config: Config, tokenizer: Any, chat_template: str | None = None) -> Source:
    """Return a source for conversion.

    Raises:
        ModelError: the architecture is not supported, or llama.cpp would compute it in another way.
    """
    if sees(config):
        family_of(config)
        config = text_config(config)
    flat = flat_config(config)
    check_configuration(flat)
    return Source(folder, name, flat, tokenizer, chat_template)


def convert(source: Source, file: Path, type_name: str, pre_tokenizer: str | None = None) -> None:
    """Write a model to a GGUF file of a plain type. The peak of memory is a few times the largest tensor.

    Raises:
        ModelError: the model cannot be written as GGUF.
        RequestError: its pre-tokenizer is unknown and none is given.
        OSError: the disk refuses a write.
    """
    with telling_misfits(source.folder):
        _convert(source, file, type_name, pre_tokenizer)


@contextmanager
def telling_misfits(folder: Path) -> Iterator[None]:
    """Make what comes of weights and configurations that do not fit each other an error that says so.

    Raises:
        ModelError: such a thing came.
    """
    try:
        yield
    except (ValueError, TypeError, IndexError, OverflowError, struct.error) as error:
        reason = printable(" ".join(str(error).split()), 200)
        raise ModelError(f"the weights in {folder} do not fit its config.json: {reason}") from error


def _convert(source: Source, file: Path, type_name: str, pre_tokenizer: str | None) -> None:
    qtype, file_type = PLAIN_TYPES[type_name]
    architecture = source.architecture
    vocabulary = read_vocabulary(source.folder, source.tokenizer, source.config, architecture, pre_tokenizer)
    plan = planned_tensors(source, qtype)
    with gguf_file(file, architecture.name) as writer:
        add_plan(writer, plan)
        _write_keys(writer, source, vocabulary, file_type)
        write_planned(writer, plan, f"Writing {type_name}")


def _write_keys(writer: gguf.GGUFWriter, source: Source, vocabulary: Vocabulary, file_type: LlamaFileType) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    write_metadata(writer, source.folder, source.name)
    try:
        source.architecture.parameters(writer, source.config)
    except KeyError as error:
        raise ModelError(f"the configuration in {source.folder} lacks {error.args[0]!r}") from error
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    write_vocabulary(writer, vocabulary, source.folder, source.config, source.architecture, source.chat_template)


def planned_tensors(source: Source, qtype: GGMLQuantizationType) -> list[Planned]:
    """Return every tensor of the file to be, in the order of the model's own files.

    Raises:
        ModelError: a tensor has no place in the architecture.
    """
    architecture = source.architecture
    names = gguf.get_tensor_name_map(architecture.arch, layers_of(source.config))
    tensors = list(architecture.extras(source.config))
    for tensor in _model_tensors(source):
        name = names.get_name(tensor.name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ModelError(f"{tensor.name} has no place in the architecture {architecture.name}")
        tensors.append(Tensor(name, tensor.shape, tensor.read))
    return [Planned(tensor, type_of(tensor.name, tensor.shape, qtype)) for tensor in tensors]


def _model_tensors(source: Source) -> Iterator[Tensor]:
    architecture = source.architecture
    # A tied head is the embedding, which llama.cpp takes by itself.
    tied = ("lm_head.weight",) if source.config.get("tie_word_embeddings") else ()
    unwanted = (*_NEVER_NEEDED, *architecture.dropped, *tied)
    named = [(source.text_name(part.name), part) for part in stored_tensors(source.folder)]
    kept = [Tensor(name, part.shape, part.read) for name, part in named if name and not name.endswith(unwanted)]
    for tensor in stacked_experts(kept, source.config):
        yield from architecture.reshape(tensor, source.config)


def type_of(name: str, shape: Sequence[int], wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    """Return the type a tensor is written in: small and sensitive ones stay F32, a row that no block fits is F16."""
    if len(shape) <= 1 or name.endswith("_norm.weight") or not name.endswith((".weight", ".lora_a", ".lora_b")):
        return GGMLQuantizationType.F32
    if any(name.endswith(f"{gguf.TENSOR_NAMES[kind].rpartition('.')[2]}.weight") for kind in _ALWAYS_F32):
        return GGMLQuantizationType.F32
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return wanted if shape[-1] % block == 0 else GGMLQuantizationType.F16


@contextmanager
def gguf_file(file: Path, architecture: str) -> Iterator[gguf.GGUFWriter]:
    """Give a writer of a file, which is closed at the end."""
    writer = gguf.GGUFWriter(path=file, arch=architecture)
    try:
        yield writer
    finally:
        writer.close()


def add_plan(writer: gguf.GGUFWriter, plan: Sequence[Planned]) -> None:
    """Tell the writer of every tensor to come."""
    for planned in plan:
        shape = planned.tensor.shape
        writer.add_tensor_info(planned.tensor.name, shape, np.dtype(np.float32), planned.nbytes, planned.type)


def write_planned(writer: gguf.GGUFWriter, plan: Sequence[Planned], description: str) -> None:
    """Write the header and then the tensors, one in memory at a time."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with progress(description, sum(planned.nbytes for planned in plan)) as advance:
        for planned in plan:
            writer.write_tensor_data(np.ascontiguousarray(planned.values()).view(_Told))
            advance(planned.nbytes)


class _Told(np.ndarray):
    """An array that Python writes: numpy's own way does not tell when the disk refuses the last kilobytes of one."""

    def tofile(self, fid: Any, sep: str = "", format: str = "%s") -> None:
        """Write the bytes to an open file.

        Raises:
            OSError: the disk refuses them.
        """
        fid.write(self.data.cast("B"))
