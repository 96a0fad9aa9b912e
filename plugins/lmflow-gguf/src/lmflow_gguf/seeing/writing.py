"""Conversion of the eyes of a model, and of what leads from them to the text, to a file beside the text's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
from gguf import GGMLQuantizationType

from lmflow_core.api import ModelError
from lmflow_gguf.architectures import Tensor
from lmflow_gguf.checkpoint import read_json, stored_tensors
from lmflow_gguf.convert import (
    PLAIN_TYPES,
    Planned,
    Source,
    add_plan,
    gguf_file,
    telling_misfits,
    type_of,
    write_planned,
)
from lmflow_gguf.metadata import write_metadata
from lmflow_gguf.seeing.families import check_eyes, family_of
from lmflow_gguf.seeing.family import Eyes, Family, write_shared

MMPROJ = "mmproj-"
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_ARCHITECTURE = gguf.MODEL_ARCH.MMPROJ


def read_eyes(source: Source) -> Eyes:
    """Return the configurations of a source that sees.

    Raises:
        ModelError: llama.cpp would compute it in another way, or the family is not supported.
    """
    processor: dict[str, object] = {}
    for name in _PROCESSOR_FILES:
        told = read_json(source.folder / name)
        processor |= {**told, **told.get("image_processor", {})}
    family = family_of(source.config)
    eyes = Eyes(source.config, family.sizes(source.config["vision_config"]), processor)
    check_eyes(family, eyes)
    return eyes


def note_of(eyes: Eyes) -> str | None:
    """Return what a user must know of the images that llama.cpp makes for a model; None where they are the same."""
    return family_of(eyes.whole).note(eyes)


def convert_eyes(source: Source, eyes: Eyes, file: Path, type_name: str) -> None:
    """Write the eyes of a model to a file of a plain type. The peak of memory is a few times the largest tensor.

    Raises:
        ModelError: they cannot be written as GGUF.
        OSError: the disk refuses a write.
    """
    family = family_of(source.config)
    qtype, file_type = PLAIN_TYPES[type_name]
    with telling_misfits(source.folder):
        plan = [*_planned(source, family, eyes, qtype)]
        with gguf_file(file, gguf.MODEL_ARCH_NAMES[_ARCHITECTURE]) as writer:
            add_plan(writer, plan)
            writer.add_type(gguf.GGUFType.MMPROJ)
            write_metadata(writer, source.folder, source.name)
            writer.add_file_type(file_type)
            _write_parameters(writer, source, family, eyes)
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            write_planned(writer, plan, f"Writing {type_name} of the eyes")


def _write_parameters(writer: gguf.GGUFWriter, source: Source, family: Family, eyes: Eyes) -> None:
    try:
        write_shared(writer, family, eyes)
        family.parameters(writer, eyes)
    except KeyError as error:
        raise ModelError(f"the files of {source.folder} lack {error.args[0]!r}") from error


def _planned(source: Source, family: Family, eyes: Eyes, qtype: GGMLQuantizationType) -> Iterator[Planned]:
    names = gguf.get_tensor_name_map(_ARCHITECTURE, eyes.vision["num_hidden_layers"])
    for part in stored_tensors(source.folder):
        for tensor in family.tensors(Tensor(part.name, part.shape, part.read), eyes):
            # What has no name in the tables has the one of GGUF already.
            name = names.get_name(tensor.name, try_suffixes=(".weight", ".bias")) or tensor.name
            if not name.startswith(("v.", "mm.")):
                raise ModelError(f"{tensor.name} has no place in the file of the eyes")
            kind = _type_of(name, tensor.shape, qtype, family)
            yield Planned(Tensor(name, tensor.shape, tensor.read), kind)


def _type_of(name: str, shape: tuple[int, ...], wanted: GGMLQuantizationType, family: Family) -> GGMLQuantizationType:
    if len(shape) > 1 and name in family.fixed:
        return family.fixed[name]
    if name == "v.position_embd.weight":
        return GGMLQuantizationType.F32
    if ".patch_embd.weight" in name:
        return wanted if wanted == GGMLQuantizationType.F16 else GGMLQuantizationType.F32
    return type_of(name, shape, wanted)
