"""Extending a SentencePiece tokenizer (Kudo and Richardson, arXiv:1808.06226), BPE or unigram.

Its pieces are whole characters, so a new script brings its characters first and then what they merge into. The fast
tokenizer and, where there is one, ``tokenizer.model`` are extended alike.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lmflow_core.api import RequestError
from lmflow_vocabulary.backends import Steps, next_id, pin_added_tokens, tokenizer_of
from lmflow_vocabulary.byte_level import Extended, old_pieces
from lmflow_vocabulary.merging import Learned, MergeLearner
from lmflow_vocabulary.scripts import LearnedCharacters

MODEL_FILE = "tokenizer.model"
SPACE = "\u2581"
_LONGEST = 16
# Of all characters of a script in the text; what is rarer stays bytes, or unknown.
_COVERAGE = 0.9995
_LEAST_COUNT = 2


def is_sentencepiece(steps: Steps) -> bool:
    """Whether a fast tokenizer was made from SentencePiece."""
    model = steps["model"]
    return model["type"] == "Unigram" or (model["type"] == "BPE" and bool(model.get("byte_fallback")))


def extend_sentencepiece(
    steps: Steps, texts: Iterable[str], size: int, characters: LearnedCharacters
) -> tuple[Extended, Mapping[int, float]]:
    """Return the tokenizer with new pieces of a script, and their scores.

    A text that holds none of the characters keeps its ids, as every new piece holds one.

    Args:
        steps: the JSON of the fast tokenizer.
        texts: what to learn from; gone through twice.
        size: new pieces at most.
        characters: of the script.

    Raises:
        RequestError: nothing can be learned from the texts.
    """
    vocabulary = _numbered(steps)
    words = _count_words(texts, characters)
    first = next_id(steps, vocabulary)
    letters = _new_letters(words, vocabulary, characters)[:size]
    numbers = {letter: first + place for place, letter in enumerate(letters)}
    pieces = {number: text.encode("utf-8") for text, number in {**vocabulary, **numbers}.items()}
    old = _old_segmenter(steps)
    encoded = [(tokens, count) for word, count in words.items() for tokens in _encoded(word, numbers, vocabulary, old)]
    learner = MergeLearner(encoded, pieces, first + len(letters))
    learned = learner.learn(size - len(letters), lambda piece: _is_allowed(piece, characters))
    new = {number: letter for letter, number in numbers.items()}
    new |= {number: piece.decode("utf-8") for number, piece in learned.pieces.items()}
    if not new:
        raise RequestError(
            f"no new piece is found in --files: the model knows every character of {', '.join(characters.scripts)} in "
            "it, and no two pieces stand beside each other twice. Give more text"
        )
    letters_of = {number: old(letter) for letter, number in numbers.items()}
    made = old_pieces(learned, frozenset(vocabulary.values()), letters_of)
    scores = _scores(steps, learned, new)
    _append(steps, new, scores)
    return Extended(steps, made, None), scores


def _numbered(steps: Steps) -> dict[str, int]:
    vocabulary = steps["model"]["vocab"]
    if isinstance(vocabulary, dict):
        return dict(vocabulary)
    return {text: number for number, (text, _) in enumerate(vocabulary)}


def _count_words(texts: Iterable[str], characters: LearnedCharacters) -> Counter[str]:
    """Return runs of the characters, with the space that goes before a word."""
    found = {char for text in texts for char in set(text) if char in characters}
    run = re.compile(f"{SPACE}?[{''.join(map(re.escape, sorted(found)))}]+")
    words: Counter[str] = Counter()
    for text in texts:
        for word in text.split():
            for match in run.findall(SPACE + word):
                words[match] += 1
    return words


def _new_letters(words: Mapping[str, int], vocabulary: Mapping[str, int], characters: LearnedCharacters) -> list[str]:
    """Return characters that the vocabulary lacks, the most frequent first, without the rarest."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for char in word:
            counts[char] += count
    del counts[SPACE]
    enough, seen, letters = _COVERAGE * counts.total(), 0, []
    for char, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if seen >= enough or count < _LEAST_COUNT:
            break
        seen += count
        if char not in vocabulary and char in characters:
            letters.append(char)
    return letters


def _old_segmenter(steps: Steps) -> Any:
    """Return a function of a text to the ids that the tokenizer makes of it now, nothing put before or changed."""
    none = ("normalizer", "pre_tokenizer", "post_processor", "truncation", "padding")
    plain = tokenizer_of(steps | {"added_tokens": []} | dict.fromkeys(none))
    return lambda text: list(plain.encode(text, add_special_tokens=False).ids)


def _encoded(word: str, numbers: Mapping[str, int], vocabulary: Mapping[str, int], old: Any) -> Iterator[list[int]]:
    """Yield the tokens of a word; it ends where a character is not to be a piece, and begins again behind it."""
    tokens: list[int] = []
    known = ""
    for char in word:
        if char in vocabulary:
            known += char
            continue
        tokens += old(known) if known else []
        known = ""
        if char in numbers:
            tokens.append(numbers[char])
            continue
        yield tokens
        tokens = []
    yield tokens + (old(known) if known else [])


def _is_allowed(piece: bytes, characters: LearnedCharacters) -> bool:
    text = piece.decode("utf-8")
    return len(text) <= _LONGEST and characters.in_text(text)


def _scores(steps: Steps, learned: Learned, new: Mapping[int, str]) -> dict[int, float]:
    """Return the scores of new pieces: below all others in BPE, log-probabilities in a unigram model."""
    if steps["model"]["type"] == "BPE":
        last = float(len(steps["model"]["vocab"]))
        return {number: -last - place for place, number in enumerate(new, start=1)}
    total = sum(learned.counts.values()) or 1
    return {number: math.log(max(learned.counts.get(number, 0), 0.5) / total) for number in new}


def _append(steps: Steps, new: Mapping[int, str], scores: Mapping[int, float]) -> None:
    model = steps["model"]
    if model["type"] == "Unigram":
        filled = {token["id"]: token["content"] for token in steps["added_tokens"]}
        worst = min(score for _, score in model["vocab"]) - 10
        model["vocab"] += [[filled.get(n, f"<unused{n}>"), worst] for n in range(len(model["vocab"]), min(new))]
        model["vocab"] += [[text, scores[number]] for number, text in new.items()]
        return
    pin_added_tokens(steps)
    vocabulary: dict[str, int] = model["vocab"]
    vocabulary |= {text: number for number, text in new.items()}
    for text in new.values():
        # SentencePiece merges any two pieces that make a third: so must the merges.
        splits = [[text[:at], text[at:]] for at in range(1, len(text))]
        model["merges"] += [split for split in splits if split[0] in vocabulary and split[1] in vocabulary]


def write_model_file(source: Path, target: Path, steps: Steps, scores: Mapping[int, float]) -> None:
    """Write ``tokenizer.model`` with the pieces of an extended fast tokenizer.

    None is written where its numbers are not those of the fast tokenizer, which alone counts then.
    """
    from sentencepiece import sentencepiece_model_pb2

    messages: Any = sentencepiece_model_pb2
    proto = messages.ModelProto()
    proto.ParseFromString(source.read_bytes())
    texts = {number: text for text, number in _numbered(steps).items()}
    if any(texts.get(number) != piece.piece for number, piece in enumerate(proto.pieces)):
        return
    special = {token["id"]: token["special"] for token in steps["added_tokens"]}
    kinds = messages.ModelProto.SentencePiece
    lowest = min(piece.score for piece in proto.pieces)
    for number in range(len(proto.pieces), max(scores) + 1):
        kind = kinds.CONTROL if special.get(number) else kinds.USER_DEFINED if number in special else kinds.UNUSED
        kind = kinds.NORMAL if number in scores else kind
        score = scores.get(number, lowest)
        proto.pieces.add(piece=texts.get(number, f"<unused{number}>"), score=score, type=kind)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    target.write_bytes(proto.SerializeToString())
