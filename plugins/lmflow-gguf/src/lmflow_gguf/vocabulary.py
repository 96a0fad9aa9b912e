"""A tokenizer as GGUF keeps it: tokens with their types, scores or merges, the pre-tokenizer's id, special tokens."""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
from gguf import TokenType

from lmflow_core.api import ModelError, RequestError
from lmflow_gguf.architectures import Architecture, Config
from lmflow_gguf.checkpoint import read_json

SENTENCEPIECE_FILE = "tokenizer.model"
# Where the configuration of an extended model tells what its vocabulary was.
EXTENSION_KEY = "lmflow_vocabulary"
_ADDED_SCORE = -1000.0
_PAD_SCORE = -10000.0
_SPACE = "\u2581"
_ALWAYS_CONTROL = ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
# Marks that are known by the size of the vocabulary alone, as the files of these models do not tell them.
_GEMMA_END_OF_TURN = 107
_CODE_LLAMA_SIZE = 32016
_CODE_LLAMA_END_OF_TURN = 32010
_SMOLLM_SIZE = 49152


@dataclass
class Vocabulary:
    """Tokens by id. ``scores`` belong to SentencePiece; ``pre`` is llama.cpp's name of the pre-tokenizer."""

    model: str
    pre: str
    tokens: list[bytes]
    types: list[int]
    scores: list[float] | None = None


def read_vocabulary(folder: Path, tokenizer: Any, config: Config, arch: Architecture, pre: str | None) -> Vocabulary:
    """Return the vocabulary of a model folder.

    Args:
        folder: the model's folder.
        tokenizer: the tokenizer of transformers, opened from it.
        config: the model's flat configuration.
        arch: its architecture.
        pre: the pre-tokenizer's id, given by the user; None asks the table of known tokenizers.

    Raises:
        ModelError: there is no vocabulary of a kind that the architecture has in llama.cpp.
        RequestError: the pre-tokenizer is not known and none was given.
    """
    if "sentencepiece" in arch.vocabularies:
        if (folder / SENTENCEPIECE_FILE).is_file():
            return _from_sentencepiece(folder, config, renamed=arch.arch == gguf.MODEL_ARCH.PHI3)
        steps = json.loads(tokenizer.backend_tokenizer.to_str())
        if steps["model"]["type"] == "BPE" and steps["model"].get("byte_fallback"):
            return _from_fast(tokenizer, steps, config)
    if "bpe" not in arch.vocabularies:
        raise ModelError(f"{folder} has no {SENTENCEPIECE_FILE}, nor a tokenizer.json with byte fallback instead of it")
    tokens, types = _byte_level_tokens(tokenizer, config)
    return Vocabulary("gpt2", pre or recognised_pre_tokenizer(tokenizer, config), tokens, types)


def write_vocabulary(
    writer: gguf.GGUFWriter, vocabulary: Vocabulary, folder: Path, config: Config, arch: Architecture, chat: str | None
) -> None:
    """Write a vocabulary with the special tokens and the chat template of a folder.

    ``chat`` is the chat template for a folder that has none.
    """
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    is_bpe = vocabulary.model == "gpt2"
    special = gguf.SpecialVocab(folder, load_merges=is_bpe, n_vocab=None if is_bpe else len(vocabulary.tokens))
    special.chat_template = special.chat_template or chat
    if (end := _end_of_turn(arch, config)) is not None:
        special.special_token_ids.setdefault("eot", end)
    special.add_to_gguf(writer, quiet=True)
    _write_space_prefix(writer, folder, config, arch, is_bpe)


def _write_space_prefix(
    writer: gguf.GGUFWriter, folder: Path, config: Config, arch: Architecture, is_bpe: bool
) -> None:
    given = read_json(folder / "tokenizer_config.json").get("add_prefix_space")
    if arch.space_prefix is not None and not is_bpe:
        writer.add_add_space_prefix(arch.space_prefix)
    elif arch.arch == gguf.MODEL_ARCH.LLAMA and given is not None:
        writer.add_add_space_prefix(given)
    if arch.arch == gguf.MODEL_ARCH.LLAMA and config["vocab_size"] == _SMOLLM_SIZE:
        writer.add_add_bos_token(False)


def _end_of_turn(arch: Architecture, config: Config) -> int | None:
    if arch.arch == gguf.MODEL_ARCH.GEMMA and config["vocab_size"] > _GEMMA_END_OF_TURN:
        return _GEMMA_END_OF_TURN
    if arch.arch == gguf.MODEL_ARCH.LLAMA and config["vocab_size"] == _CODE_LLAMA_SIZE:
        return _CODE_LLAMA_END_OF_TURN
    return None


# --- byte-level BPE ---------------------------------------------------------------------------------------------------


def _byte_level_tokens(tokenizer: Any, config: Config) -> tuple[list[bytes], list[int]]:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    size = config["vocab_size"]
    if max(vocabulary.values()) >= size:
        raise ModelError(f"the tokenizer has {max(vocabulary.values()) + 1} tokens, the model places for {size}")
    texts = {number: text for text, number in vocabulary.items()}
    added = dict(tokenizer.added_tokens_decoder)
    tokens: list[bytes] = []
    types: list[int] = []
    for number in range(size):
        text = texts.get(number, f"[PAD{number}]")
        kind = TokenType.NORMAL if number in texts else TokenType.UNUSED
        if number in added and number in texts:
            text, kind = _added_token(tokenizer, text, added[number])
        tokens.append(text.encode("utf-8"))
        types.append(kind)
    return tokens, types


def _added_token(tokenizer: Any, text: str, token: Any) -> tuple[str, TokenType]:
    """Return text and type of an added token; llama.cpp takes its text as normalised already."""
    if not token.normalized:
        text = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))
    if token.special or _looks_special(text):
        return text, TokenType.CONTROL
    return text.replace(_SPACE, " "), TokenType.USER_DEFINED


def _looks_special(text: str) -> bool:
    """Whether a token is a mark although its file does not say so, as in some published models."""
    bracketed = (text.startswith("<|") and text.endswith("|>")) or (text.startswith("<｜") and text.endswith("｜>"))
    return text in _ALWAYS_CONTROL or bracketed or (text.startswith("<unused") and text.endswith(">"))


@functools.cache
def _known_pre_tokenizers() -> Mapping[str, Any]:
    """Return llama.cpp's table: a text, and by the digest of its ids the id of the pre-tokenizer."""
    text = importlib.resources.files("lmflow_gguf").joinpath("pretokenizers.json").read_text(encoding="utf-8")
    table: Mapping[str, Any] = json.loads(text)
    return table


def pre_tokenizer_names() -> list[str]:
    """Return the pre-tokenizers that may be given."""
    return sorted({"default", *_known_pre_tokenizers()["ids"].values()})


def recognised_pre_tokenizer(tokenizer: Any, config: Config) -> str:
    """Return llama.cpp's id of a tokenizer's pre-tokenizer.

    The table knows tokenizers by the ids that they give to a text. One that was extended has other ids and cuts words
    as before, so it is asked for by the tokens that its configuration says there were.

    Raises:
        RequestError: the tokenizer is not in the table; a guess would split text wrongly without anybody noticing.
    """
    table = _known_pre_tokenizers()
    base = _before_extension(tokenizer, config)
    ids = list(tokenizer.encode(table["text"])) if base is None else list(base.encode(table["text"]).ids)
    digest = hashlib.sha256(str(ids).encode()).hexdigest()
    name: str | None = table["ids"].get(digest)
    if name is None:
        raise RequestError(
            "the pre-tokenizer is not one that llama.cpp's table knows, as happens when a vocabulary was trained or "
            "extended: name the one it was made from with --pre-tokenizer, such as gpt-2, llama-bpe, qwen2 or smollm"
        )
    return name


def _before_extension(tokenizer: Any, config: Config) -> Any:
    """Return the backend of a tokenizer without the tokens that it was extended by; None of one that was not."""
    told = config.get(EXTENSION_KEY)
    tokens, merges = (told.get(name) for name in ("base_tokens", "base_merges")) if isinstance(told, dict) else (0, 0)
    if not isinstance(tokens, int) or not isinstance(merges, int) or not tokens:
        return None
    backend = tokenizer.backend_tokenizer
    steps = json.loads(backend.to_str())
    model = steps["model"]
    model["vocab"] = {text: number for text, number in model["vocab"].items() if number < tokens}
    model["merges"] = model["merges"][:merges]
    return type(backend).from_str(json.dumps(steps))


def is_merged_otherwise(folder: Path, arch: Architecture) -> bool:
    """Whether llama.cpp cuts text into other tokens than the folder's tokenizer does.

    It merges the pieces of every SentencePiece model by their scores, which is right for BPE; a unigram model takes the
    likeliest pieces instead.
    """
    from sentencepiece import sentencepiece_model_pb2

    if "sentencepiece" not in arch.vocabularies or not (folder / SENTENCEPIECE_FILE).is_file():
        return False
    messages: Any = sentencepiece_model_pb2
    trained = messages.ModelProto.FromString((folder / SENTENCEPIECE_FILE).read_bytes()).trainer_spec
    return bool(trained.model_type == messages.TrainerSpec.UNIGRAM)


# --- SentencePiece ----------------------------------------------------------------------------------------------------


def _from_sentencepiece(folder: Path, config: Config, *, renamed: bool) -> Vocabulary:
    """Read a SentencePiece file and the tokens that were added to it.

    ``renamed`` says that tokens of tokenizer.json go before pieces of the same number, as Phi-3 needs it.
    """
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor()
    pieces.LoadFromFile(str(folder / SENTENCEPIECE_FILE))
    vocabulary = _padded(config.get("vocab_size") or pieces.vocab_size())
    for number in range(min(pieces.vocab_size(), len(vocabulary.tokens))):
        kind = _piece_type(pieces, number)
        _set(vocabulary, number, pieces.IdToPiece(number), kind, pieces.GetScore(number))
    for number, text, special in _added_in_files(folder):
        if number < len(vocabulary.tokens):
            _set_added(vocabulary, number, text, special)
    for token in read_json(folder / "tokenizer.json").get("added_tokens", []):
        # Older files list added tokens elsewhere; here are those that transformers keeps in this file alone.
        number = token["id"]
        if number < len(vocabulary.tokens) and (renamed or vocabulary.types[number] == TokenType.UNUSED):
            _set_added(vocabulary, number, token["content"], token["special"])
    return vocabulary


def _padded(size: int) -> Vocabulary:
    pads = [f"[PAD{number}]".encode() for number in range(size)]
    return Vocabulary("llama", "default", pads, [TokenType.UNUSED] * size, [_PAD_SCORE] * size)


def _piece_type(pieces: Any, number: int) -> TokenType:
    if pieces.IsUnknown(number):
        return TokenType.UNKNOWN
    if pieces.IsControl(number):
        return TokenType.CONTROL
    if pieces.IsUnused(number):
        return TokenType.UNUSED
    return TokenType.BYTE if pieces.IsByte(number) else TokenType.NORMAL


def _added_in_files(folder: Path) -> Iterator[tuple[int, str, bool | None]]:
    """Yield id, text and whether special (None: user-defined for sure) of the tokens that older files list."""
    for text, number in read_json(folder / "added_tokens.json").items():
        yield number, text, None
    for number, token in read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {}).items():
        yield int(number), token["content"], bool(token.get("special"))


def _set(vocabulary: Vocabulary, number: int, text: str, kind: TokenType, score: float) -> None:
    assert vocabulary.scores is not None
    vocabulary.tokens[number] = text.encode("utf-8")
    vocabulary.types[number] = kind
    vocabulary.scores[number] = score


def _set_added(vocabulary: Vocabulary, number: int, text: str, special: bool | None) -> None:
    if special is None:
        _set(vocabulary, number, text, TokenType.USER_DEFINED, _ADDED_SCORE)
    elif special or _looks_special(text):
        _set(vocabulary, number, text, TokenType.CONTROL, _ADDED_SCORE)
    else:
        _set(vocabulary, number, text.replace(_SPACE, " "), TokenType.USER_DEFINED, _ADDED_SCORE)


def _from_fast(tokenizer: Any, steps: Mapping[str, Any], config: Config) -> Vocabulary:
    """Return a SentencePiece vocabulary from a fast tokenizer that was made from one.

    Its merges come in the order of the scores, so that the scores that are missing can be numbered again: llama.cpp
    then merges the same pairs in the same order.
    """
    vocabulary = _padded(config["vocab_size"])
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(steps["model"]["merges"]):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault(left + right, rank)
    unknown = steps["model"].get("unk_token") or tokenizer.unk_token
    for text, number in steps["model"]["vocab"].items():
        is_byte = len(text) == 6 and text.startswith("<0x") and text.endswith(">")
        kind = TokenType.BYTE if is_byte else TokenType.UNKNOWN if text == unknown else TokenType.NORMAL
        _set(vocabulary, number, text, kind, float(-ranks.get(text, len(ranks))))
    for token in steps["added_tokens"]:
        if token["content"] != unknown:
            _set_added(vocabulary, token["id"], token["content"], token["special"])
    return vocabulary
