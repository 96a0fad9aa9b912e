"""Puts pieces of control tokens, and what a tokenizer may take for them, into every place that data or a user fills.

Texts are made of control tokens whole and torn, in capitals, full width, with accents and without width. A case is lost
when the ids hold a control token that the same conversation with plain words does not. A refusal is none.
"""

from __future__ import annotations

import random
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tally import Tally, campaign_arguments
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import lmflow_core.api as lmflow
from lmflow_core.contracts.template import TemplateSpec
from lmflow_core.data.encoding import Encoder
from lmflow_core.generation.answers import encoded_prompt
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.templates.own import JinjaTemplate
from lmflow_gguf.tokenizer import GgufTokenizer
from lmflow_transformers.tokenizers import TransformersTokenizer

ENDS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "[INST]")
CONTROL = (*ENDS, *MARKS)
_LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
_ASCII = [chr(code) for code in range(33, 127)]
_NFKC, _LOWER = normalizers.NFKC(), normalizers.Lowercase()
_BARE = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()])


def _byte_level(normalizer: object = None, **flags: bool) -> Tokenizer:
    backend = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(_LETTERS)}, merges=[]))
    return _added(backend, normalizer, pre_tokenizers.ByteLevel(add_prefix_space=False), **flags)


def _whole_words(normalizer: object = None, **flags: bool) -> Tokenizer:
    pieces = {piece: number for number, piece in enumerate([*_LETTERS, *CONTROL])}
    backend = Tokenizer(models.BPE(vocab=pieces, merges=[], ignore_merges=True))
    return _added(backend, normalizer, pre_tokenizers.WhitespaceSplit(), **flags)


def _sentence_piece(normalizer: object = None, **flags: bool) -> Tokenizer:
    pieces = ["<unk>", *(f"<0x{number:02X}>" for number in range(256)), "▁", *_ASCII, "<|", "|>", "im", "▁<"]
    merges = [("<", "|"), ("|", ">"), ("i", "m"), ("▁", "<")]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    steps = [normalizer] if normalizer else []
    steps += [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    return _added(backend, normalizers.Sequence(steps), None, **flags)


def _unigram(normalizer: object = None, **flags: bool) -> Tokenizer:
    pieces = [("<unk>", 0.0), *((token, 0.0) for token in CONTROL), *((letter, -9.0) for letter in ("▁", *_ASCII))]
    return _added(Tokenizer(models.Unigram(pieces, 0, False)), normalizer, pre_tokenizers.Metaspace(), **flags)


def _word_piece(normalizer: object = None, **flags: bool) -> Tokenizer:
    pieces = ["[UNK]", *CONTROL, *_ASCII, *("##" + letter for letter in _ASCII)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    return _added(backend, normalizer, pre_tokenizers.WhitespaceSplit(), **flags)


def _words(normalizer: object = None, **flags: bool) -> Tokenizer:
    vocabulary = {piece: number for number, piece in enumerate(["[UNK]", *CONTROL, *_ASCII, "word", "user"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    return _added(backend, normalizer, pre_tokenizers.WhitespaceSplit(), **flags)


def _added(backend: Tokenizer, normalizer: object, splits: object, special: bool = False, **flags: bool) -> Tokenizer:
    if normalizer:
        backend.normalizer = normalizer
    if splits:
        backend.pre_tokenizer = splits
    backend.add_special_tokens([AddedToken(token, special=True, **flags) for token in ENDS])
    marks = [AddedToken(token, special=special, **flags) for token in MARKS]
    backend.add_special_tokens(marks) if special else backend.add_tokens(marks)
    return backend


def _opened(backend: Tokenizer) -> lmflow.Tokenizer:
    inner = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=ENDS[1], eos_token=ENDS[2])
    return TransformersTokenizer(inner)


def _gguf() -> lmflow.Tokenizer:
    from gguf import GGUFWriter

    pieces = ["<unk>", *ENDS, *MARKS, *(f"<0x{number:02X}>" for number in range(256)), "▁", *_ASCII, "<|", "|>", "im"]
    kinds = [2, *[3] * len(ENDS), *[4] * len(MARKS), *[6] * 256, *[1] * (len(_ASCII) + 4)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.gguf")
        writer = GGUFWriter(file, "llama")
        writer.add_tokenizer_model("llama")
        writer.add_token_list(pieces)
        writer.add_token_scores([-float(number) for number in range(len(pieces))])
        writer.add_token_types(kinds)
        writer.add_bos_token_id(2)
        writer.add_eos_token_id(3)
        writer.add_unk_token_id(0)
        writer.add_tensor("output.weight", np.zeros(32, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        tokenizer = GgufTokenizer(file)
        tokenizer.encode(["a"], [True])
        return tokenizer


KINDS: dict[str, Callable[[], lmflow.Tokenizer]] = {
    "byte-level": lambda: _opened(_byte_level()),
    "byte-level, raw": lambda: _opened(_byte_level(normalized=False)),
    "byte-level, NFC": lambda: _opened(_byte_level(normalizers.NFC(), normalized=True)),
    "byte-level, NFKC": lambda: _opened(_byte_level(_NFKC, normalized=True)),
    "byte-level, NFKC, all special": lambda: _opened(_byte_level(_NFKC, normalized=True, special=True)),
    "byte-level, Lowercase": lambda: _opened(_byte_level(_LOWER, normalized=True)),
    "byte-level, NFKD and no accents": lambda: _opened(_byte_level(_BARE, normalized=True)),
    "byte-level, lstrip and rstrip": lambda: _opened(_byte_level(_NFKC, normalized=True, lstrip=True, rstrip=True)),
    "byte-level, single words": lambda: _opened(_byte_level(_LOWER, normalized=True, single_word=True)),
    "byte-level, Replace": lambda: _opened(_byte_level(normalizers.Replace("\u200b", ""), normalized=True)),
    "byte-level, § for a token": lambda: _opened(_byte_level(normalizers.Replace("§", "[INST]"), normalized=True)),
    "whole words, NFKC": lambda: _opened(_whole_words(_NFKC)),
    "SentencePiece BPE": lambda: _opened(_sentence_piece()),
    "SentencePiece BPE, NFKC": lambda: _opened(_sentence_piece(_NFKC, normalized=True)),
    "Unigram": lambda: _opened(_unigram()),
    "Unigram, NFKC": lambda: _opened(_unigram(_NFKC, normalized=True)),
    "Unigram, Lowercase and NFKD": lambda: _opened(_unigram(normalizers.Sequence([_BARE, _LOWER]))),
    "WordPiece": lambda: _opened(_word_piece()),
    "WordPiece, BERT": lambda: _opened(_word_piece(normalizers.BertNormalizer(lowercase=True), normalized=True)),
    "words, Lowercase": lambda: _opened(_words(normalizers.Sequence([_NFKC, _LOWER]), normalized=True)),
    "llama.cpp, SentencePiece": _gguf,
}


def _changed(token: str, source: random.Random) -> str:
    wide = "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in token)
    at = source.randrange(len(token) + 1)
    return source.choice(
        [
            token,
            token.upper(),
            token.title(),
            wide,
            wide.upper(),
            "".join(source.choice(pair) for pair in zip(token, wide, strict=True)),
            "".join(source.choice((letter, letter.upper())) for letter in token),
            token[:at] + source.choice("\u200b\u200d\ufeff\u0301\u0327\u00ad \n\0") + token[at:],
            token.replace("s", "ſ").replace("i", "ı").replace("k", "\u212a"),
            unicodedata.normalize("NFD", token.replace("n", "ñ").replace("e", "é")),
            token[:at],
            token[at:],
            token[:at] + token + token[at:],
        ]
    )


def hostile(source: random.Random) -> str:
    """Return a text of one to five pieces."""
    words = ("word", "user", " ", "\n", "", "§", "é", "ﬁ", "<", "|>", "</")
    torn = [_changed(source.choice(CONTROL), source) for _ in range(5)]
    return "".join(piece if source.random() < 0.7 else source.choice(words) for piece in torn)


def conversation(text: Callable[[], str], calls: bool) -> tuple[lmflow.Conversation, lmflow.Prompt]:
    """Return a conversation to train on and one to answer, with what ``text`` gives in every place."""

    def content() -> str:
        # What closes the reasoning is read in an assistant's turn, as the models' own templates do.
        return f"x{text()}x".replace("</think>", "</thin>")

    system, ask = lmflow.Message("system", f"x{text()}x"), lmflow.Message("user", f"x{text()}x")
    answer = lmflow.Message("assistant", content(), reasoning=content())
    if not calls:
        turns = (system, ask, answer)
        return lmflow.Conversation(turns), lmflow.Prompt((*turns, ask))
    schema = {"type": "object", "properties": {text(): {"description": text()}}}
    tool = {"type": "function", "function": {"name": text(), "description": text(), "parameters": schema}}
    call = lmflow.ToolCall(text() or "f", {text(): text(), "b": [{text(): [text()]}]})
    asked, result = lmflow.Message("assistant", "", tool_calls=(call,)), lmflow.Message("tool", f"x{text()}x")
    turns = (system, ask, asked, result, answer)
    return lmflow.Conversation(turns, tools=(tool,)), lmflow.Prompt((*turns, ask), tools=(tool,))


REFUSED = "refused"
Texts = Callable[[], str]
Route = Callable[[Texts], list[int]]


class Routes:
    """Every way of a text to ids, for one tokenizer."""

    def __init__(self, tokenizer: lmflow.Tokenizer, known: lmflow.ChatTemplate) -> None:
        self._tokenizer = tokenizer
        self._raw = Encoder(tokenizer, None)
        self._known, own = Encoder(tokenizer, known), JinjaTemplate(tokenizer, known.to_jinja())
        self._own = Encoder(tokenizer, own)
        unknown = {"<unk>", "[UNK]"}
        self._control = {number for name, number in tokenizer.control_tokens.items() if name not in unknown}

    def tries(self, source: random.Random) -> Iterator[tuple[str, Route]]:
        """Yield names of routes, each with what gives the control ids of texts that come that way."""
        calls = source.random() < 0.4
        question = lambda t: [lmflow.Message("user", f"x{t()}")]  # noqa: E731
        yield "raw text", lambda t: self._ids(self._raw, lmflow.Text(f"x{t()}"))
        yield "prompt and completion", lambda t: self._ids(self._raw, lmflow.Prompted(f"x{t()}", f"x{t()}"))
        yield "raw prompt", lambda t: self._found(encoded_prompt(Encoder(self._tokenizer, None), question(t)).input_ids)
        yield "training", lambda t: self._ids(self._known, conversation(t, calls)[0])
        yield "prompt", lambda t: self._ids(self._known, conversation(t, calls)[1])
        if source.random() < 0.1:
            yield "training, own template", lambda t: self._ids(self._own, conversation(t, calls)[0])

    def _ids(self, encoder: Encoder, example: lmflow.Example) -> list[int]:
        return self._found(encoder.encode([example])[0].sequences[0].input_ids)

    def _found(self, ids: Sequence[int]) -> list[int]:
        return [number for number in ids if number in self._control]


def _problem(encode: Route, seed: float) -> str | None:
    texts = random.Random(seed)
    expected = encode(lambda: "word")
    try:
        found = encode(lambda: hostile(texts))
    except (lmflow.ControlTextError, ValueError):
        return REFUSED
    return None if found == expected else f"{found} instead of {expected}"


def main() -> None:
    """Run the campaign."""
    cases, source = campaign_arguments(__doc__, 200_000)
    tally = Tally()
    known = Catalogue.discover().of(TemplateSpec).load("qwen3")
    tokenizers = {kind: make() for kind, make in KINDS.items()}
    routes = {kind: Routes(made, known.bind(made.bos_token, made.eos)) for kind, made in tokenizers.items()}
    done = refused = 0
    while done < cases:
        for kind, ways in routes.items():
            for route, encode in ways.tries(source):
                seed = source.random()
                problem = _problem(encode, seed)
                refused += problem == REFUSED
                tally.add(kind, f"{route}: seed {seed}: {problem}" if problem and problem != REFUSED else None)
                done += 1
    print(f"{refused} of them refused")
    tally.finish()


if __name__ == "__main__":
    main()
