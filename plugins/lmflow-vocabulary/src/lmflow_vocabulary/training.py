"""A vocabulary of its own, trained on text: SentencePiece or byte-level BPE, as transformers loads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmflow_core.api import RequestError, atomic_folder
from lmflow_transformers.api import refusals_as_os_errors
from lmflow_vocabulary.texts import Corpus, count_characters

KINDS = ("bpe", "sentencepiece")
ALGORITHMS = ("unigram", "bpe")
_BYTES = 256
_OPEN, _CLOSE, _UNKNOWN = "<s>", "</s>", "<unk>"
# Three control tokens beside the bytes.
LEAST_SIZE = _BYTES + 3
_LONGEST_LINE = 1 << 16


@dataclass(frozen=True)
class Trained:
    """What was trained: how many tokens, and how many were asked for."""

    tokens: int
    asked: int


def train(files: Sequence[Path], field: str, size: int, kind: str, algorithm: str, output: Path) -> Trained:
    """Train a vocabulary and write its tokenizer into a folder, whole or not at all.

    Args:
        files: what to learn from.
        field: of JSON lines, that holds the text.
        size: tokens, control tokens and bytes among them.
        kind: one of :data:`KINDS`.
        algorithm: of SentencePiece, one of :data:`ALGORITHMS`.
        output: the folder.

    Raises:
        DataError: the files hold no text, or cannot be read.
        RequestError: the size does not suffice for what every text needs.
    """
    if size < LEAST_SIZE:
        raise RequestError(f"--size {size}: the least is {LEAST_SIZE}, a token for each byte and three control tokens")
    texts = Corpus(files, field)
    # Read once before the libraries do, which would tell of a bad file in words of their own.
    count_characters(texts)
    with atomic_folder(output) as folder:
        tokenizer = _byte_level(texts, size) if kind == "bpe" else _sentencepiece(texts, size, algorithm, folder)
        with refusals_as_os_errors():
            tokenizer.save_pretrained(folder)
    return Trained(len(tokenizer), size)


def _byte_level(texts: Corpus, size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = [_UNKNOWN, _OPEN, _CLOSE]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(iter(texts), trainer)
    kind: Any = PreTrainedTokenizerFast
    return kind(tokenizer_object=backend, unk_token=_UNKNOWN, bos_token=_OPEN, eos_token=_CLOSE, pad_token=_CLOSE)


def _sentencepiece(texts: Corpus, size: int, algorithm: str, folder: Path) -> Any:
    """Return a Llama tokenizer of a SentencePiece model, which is written into the folder as well.

    It opens each text.
    """
    from sentencepiece import SentencePieceTrainer
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    model = folder / "tokenizer.model"
    with model.open("wb") as stream:
        try:
            SentencePieceTrainer.Train(
                sentence_iterator=iter(texts), model_writer=stream, model_type=algorithm, vocab_size=size,
                byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
                split_digits=True, allow_whitespace_only_pieces=True, max_sentence_length=_LONGEST_LINE,
                hard_vocab_limit=False, minloglevel=2, num_threads=1,
            )  # fmt: skip
        except RuntimeError as error:
            raise RequestError(f"--size {size} cannot be had of these files: {' '.join(str(error).split())}") from error
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    # As Llama's does, and as llama.cpp believes of every tokenizer of this kind.
    opening = (_OPEN, tokenizer.convert_tokens_to_ids(_OPEN))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{_OPEN} $A", pair=f"{_OPEN} $A {_OPEN}:1 $B:1", special_tokens=[opening]
    )
    return tokenizer
