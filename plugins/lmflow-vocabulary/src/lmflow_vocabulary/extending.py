"""A model with a larger vocabulary: its tokenizer, its weights and its configuration, written as one folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from lmflow_core.api import LanguageModel, ModelError, atomic_folder
from lmflow_transformers.api import CausalModel, read_object, refusals_as_os_errors
from lmflow_vocabulary.backends import Steps, is_byte_level, read_steps, tokenizer_of
from lmflow_vocabulary.byte_level import Extended, extend_byte_level
from lmflow_vocabulary.record import KEY, Extension, read_extension
from lmflow_vocabulary.rows import NewRows, padded_rows, token_tensors, write_weights
from lmflow_vocabulary.scripts import LearnedCharacters, find_scripts
from lmflow_vocabulary.sentencepieces import MODEL_FILE, extend_sentencepiece, is_sentencepiece, write_model_file
from lmflow_vocabulary.texts import Corpus, count_characters

_PROBES = 200
_KEPT = ("generation_config.json", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "USE_POLICY.md")


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        files: what to learn from.
        field: of JSON lines, that holds the text.
        size: new tokens at most.
        scripts: to learn; those of the files where none is named.
        init: what new rows begin as, one of ``rows.INITS``.
        pad_to: rows are a multiple of it where they grow.
    """

    files: Sequence[Path]
    field: str
    size: int
    scripts: Sequence[str]
    init: str
    pad_to: int


@dataclass(frozen=True)
class Result:
    """What was made: scripts, tokens before and new, rows before and in the end."""

    scripts: tuple[str, ...]
    tokens_before: int
    new_tokens: int
    rows_before: int
    rows: int


def extend(model: LanguageModel, request: Request, output: Path) -> Result:
    """Write a model with new tokens into a folder, whole or not at all.

    Raises:
        ModelError: the model or its tokenizer is of a kind that cannot be extended.
        RequestError: the files have nothing to learn from.
    """
    causal, folder = _checked(model)
    tensors = token_tensors(folder, causal.config)
    steps = read_steps(causal.tokenizer.inner.backend_tokenizer)
    texts = Corpus(request.files, request.field)
    characters = LearnedCharacters(find_scripts(count_characters(texts), request.scripts))
    with atomic_folder(output) as scratch:
        extended = _extended(folder, steps, texts, request.size, characters, scratch)
        before = min(extended.pieces)
        rows = padded_rows(tensors.rows, before + len(extended.pieces), request.pad_to)
        _write_tokenizer(causal, extended, scratch)
        _check_tokenizer(causal, extended, scratch, list(islice(texts, _PROBES)))
        write_weights(folder, scratch, tensors, NewRows(_pieces_for(extended, request.init), before, rows))
        _write_config(folder, scratch, rows, extended)
        for name in _KEPT:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, scratch / name)
    return Result(characters.scripts, before, len(extended.pieces), tensors.rows, rows)


def _checked(model: LanguageModel) -> tuple[CausalModel, Path]:
    """Return a model that can be extended, and its folder.

    Raises:
        ModelError: it cannot be.
    """
    if model.adapter is not None:
        raise ModelError(f"{model.reference} has an adapter on it: merge it first with lmflow merge")
    if not isinstance(model, CausalModel) or model.folder is None:
        raise ModelError(
            f"{model.reference} has no folder with safetensors of its own: write one with lmflow export --format "
            "huggingface"
        )
    if model.plan.task != "causal" or hasattr(model.config, "vision_config"):
        raise ModelError(f"{model.reference} is no plain language model, and only those are extended")
    if getattr(model.config, "quantization_config", None) is not None:
        raise ModelError(f"{model.reference} has quantised weights: extend the model it was made from")
    steps = read_steps(model.tokenizer.inner.backend_tokenizer)
    if not is_byte_level(steps) and not is_sentencepiece(steps):
        raise ModelError(
            f"{model.reference} has a {steps['model']['type']} tokenizer, which cannot be extended: byte-level BPE and "
            "SentencePiece can"
        )
    return model, model.folder


def _extended(
    folder: Path, steps: Steps, texts: Corpus, size: int, characters: LearnedCharacters, output: Path
) -> Extended:
    if is_byte_level(steps):
        return extend_byte_level(steps, texts, size, characters)
    extended, scores = extend_sentencepiece(steps, texts, size, characters)
    if (folder / MODEL_FILE).is_file():
        write_model_file(folder / MODEL_FILE, output / MODEL_FILE, extended.steps, scores)
    return extended


def _pieces_for(extended: Extended, init: str) -> dict[int, Sequence[int]]:
    return {number: pieces if init == "mean" else () for number, pieces in extended.pieces.items()}


def _write_tokenizer(model: CausalModel, extended: Extended, folder: Path) -> None:
    inner = model.tokenizer.inner
    with refusals_as_os_errors():
        inner.save_pretrained(folder)
    text = json.dumps(extended.steps, ensure_ascii=False, indent=1)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")


def _write_config(source: Path, output: Path, rows: int, extended: Extended) -> None:
    config = read_object(source / "config.json")
    inner = config["text_config"] if "vocab_size" in (config.get("text_config") or {}) else config
    inner["vocab_size"] = rows
    first = min(extended.pieces)
    before = read_extension(config)
    extension = Extension(first, len(extended.pieces), first, extended.merges_before)
    if before is not None:
        extension = dataclasses.replace(extension, base_tokens=before.base_tokens, base_merges=before.base_merges)
    config[KEY] = extension.stored()
    (output / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_tokenizer(model: CausalModel, extended: Extended, folder: Path, probes: Sequence[str]) -> None:
    """Open what was written as its users will, and compare.

    Raises:
        ModelError: transformers makes another tokenizer of it, as a class of its own may.
    """
    before = model.tokenizer.inner
    after: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    wanted = tokenizer_of(extended.steps)
    vocabulary = after.get_vocab()
    kept = all(vocabulary.get(text) == number for text, number in before.get_vocab().items())
    named = before.special_tokens_map == after.special_tokens_map and before.chat_template == after.chat_template
    found = [each.ids for each in after.backend_tokenizer.encode_batch(list(probes))]
    same = found == [each.ids for each in wanted.encode_batch(list(probes))]
    if not (kept and named and same and vocabulary == wanted.get_vocab()):
        raise ModelError(
            f"{model.reference}: transformers reads another tokenizer from the extended files than was written, as "
            f"{type(before).__name__} makes parts of it by itself"
        )
