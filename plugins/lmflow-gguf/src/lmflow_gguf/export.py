"""Export to GGUF: from a model's folder, or from a model that was merged into one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmflow_core.api import ExportReport, ModelError, RequestError
from lmflow_gguf.checkpoint import stored_tensors
from lmflow_gguf.convert import PLAIN_TYPES, Source, convert, make_source
from lmflow_gguf.importance import importance_matrix
from lmflow_gguf.options import PLAIN, ConversionOptions, GgufOptions
from lmflow_gguf.quantise import quantise
from lmflow_gguf.report import report
from lmflow_gguf.runtime import library
from lmflow_gguf.seeing.writing import MMPROJ, convert_eyes, note_of, read_eyes
from lmflow_gguf.verify import verify
from lmflow_gguf.vocabulary import is_merged_otherwise
from lmflow_transformers.api import CausalModel, HuggingFaceExporter

# The plain type that holds the weights without loss, by the number format most of them are stored in.
_LOSSLESS = {"F64": "F32", "F32": "F32", "F16": "F16", "BF16": "BF16"}

_UNIGRAM = (
    "the tokenizer is a unigram model of SentencePiece, and llama.cpp merges pieces as if it were one of BPE: "
    "texts get other tokens there, and other likelihoods"
)


class GgufExporter:
    """Writes GGUF files."""

    def __init__(self, options: GgufOptions | None = None) -> None:
        self._options = options or GgufOptions()

    def export(self, model: CausalModel, folder: Path, chat_template: str | None) -> ExportReport:
        """Write one file for each type asked for, and the eyes of a model that sees; measure them when a report is.

        Raises:
            ModelError: the model has no form in GGUF, or a file fails its check.
            RequestError: the pre-tokenizer is unknown, or llama.cpp is needed and not installed.
        """
        options = self._options
        if options.mmproj_type is not None and model.media is None:
            raise RequestError("--mmproj-type is for a model that sees, which this is not")
        with model_source(model, folder, chat_template) as source:
            eyes, notes = _write_eyes(source, folder, options) if source.sees else ([], [])
            notes += [_UNIGRAM] if is_merged_otherwise(source.folder, source.architecture) else []
            writer = GgufWriter(model, source, folder, options)
            files = {name: folder / f"{source.name}-{name}.gguf" for name in options.type}
            for name, file in files.items():
                writer.write(name, file)
            measured = _report(writer, files, options) if options.report else ()
            writer.clean()
        return ExportReport({file.name: file.stat().st_size for file in (*files.values(), *eyes)}, measured, notes)


def _write_eyes(source: Source, folder: Path, options: GgufOptions) -> tuple[list[Path], list[str]]:
    """Write the eyes in the type asked for, else in each plain type of the text; return the files, and what to note."""
    eyes = read_eyes(source)
    asked = (options.mmproj_type,) if options.mmproj_type else options.type
    files = {folder / f"{MMPROJ}{source.name}-{name}.gguf": name for name in (_plain(name) for name in asked)}
    for file, name in files.items():
        convert_eyes(source, eyes, file, name)
    note = note_of(eyes)
    return [*files], [note] if note else []


def _plain(name: str) -> str:
    return name if name in PLAIN else "F16"


class GgufWriter:
    """Writes files of one source in several types; what the quantiser starts from is made once."""

    def __init__(self, model: CausalModel, source: Source, folder: Path, options: ConversionOptions) -> None:
        self._model = model
        self._source = source
        self._options = options
        self._scratch = folder / ".gguf"
        self._importance: Mapping[str, Any] | None = None

    def write(self, name: str, file: Path) -> None:
        """Write a file of a type, and check it when that was asked for."""
        if name in PLAIN_TYPES:
            convert(self._source, file, name, self._options.pre_tokenizer)
        else:
            self._quantise(name, file)
        if self._options.verify:
            verify(file, name, self._model)

    def plain(self, name: str) -> Path:
        """Return a file of a plain type that is no part of the result."""
        file = self._scratch / f"{name}.gguf"
        if not file.is_file():
            self._scratch.mkdir(exist_ok=True)
            convert(self._source, file, name, self._options.pre_tokenizer)
        return file

    def _quantise(self, name: str, file: Path) -> None:
        library()  # told of before minutes of conversion
        if self._options.calibration is not None and self._importance is None:
            self._importance = importance_matrix(self._model, self._source, self._options.calibration)
        quantise(self.plain(_lossless_type(self._source)), file, name, self._importance)

    def clean(self) -> None:
        """Remove what is no part of the result."""
        shutil.rmtree(self._scratch, ignore_errors=True)


def _report(writer: GgufWriter, files: Mapping[str, Path], options: GgufOptions) -> list[Mapping[str, object]]:
    source = files.get("F32") or writer.plain("F32")
    return report(files, source, options.report_text)


def _lossless_type(source: Source) -> str:
    stored = [tensor.format for tensor in stored_tensors(source.folder) if len(tensor.shape) > 1]
    return _LOSSLESS[max(set(stored), key=stored.count)]


@contextmanager
def model_source(model: CausalModel, folder: Path, chat_template: str | None) -> Iterator[Source]:
    """Give what is converted: the model's own files, or those it is saved to when an adapter must be merged first.

    Raises:
        ModelError: the architecture cannot be written as GGUF.
    """
    name = _file_name(model)
    merged = folder / ".merged" / name
    origin = model.folder if model.adapter is None else None
    # A loaded model knows its class, which a configuration that came from GGUF does not.
    config = model.config.to_dict() if origin else _config_of_loaded(model)
    source = make_source(origin or merged, name, config, model.tokenizer.inner, chat_template)
    try:
        if origin is None:
            merged.mkdir(parents=True)
            HuggingFaceExporter().export(model, merged, chat_template)
            _copy_card(model, merged)
        yield source
    finally:
        shutil.rmtree(merged.parent, ignore_errors=True)


def _config_of_loaded(model: CausalModel) -> dict[str, Any]:
    return {**model.base.config.to_dict(), "architectures": [type(model.base).__name__]}


def _copy_card(model: CausalModel, merged: Path) -> None:
    """Bring along what saving does not write: the model card, a SentencePiece file and the record of the run."""
    for origin, name in ((model.folder, "README.md"), (model.folder, "tokenizer.model"), (model.adapter, "run.json")):
        if origin is not None and (origin / name).is_file():
            shutil.copyfile(origin / name, merged / name)


def _file_name(model: CausalModel) -> str:
    """Return a name for files: that of the adapter's folder, else of the model."""
    reference = model.adapter.resolve().name if model.adapter else _last_part(model.reference)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", reference).strip("-.").removeprefix(MMPROJ)
    if not name:
        raise ModelError(f"{model.reference} gives no name for a file")
    return name


def _last_part(reference: str) -> str:
    path = Path(reference).expanduser()
    return path.resolve().name.removesuffix(".gguf") if path.exists() else reference.rpartition("/")[2]
