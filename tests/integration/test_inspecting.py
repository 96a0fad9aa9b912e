"""``lmflow data preview|stats`` on groups: each sequence is shown, with its numbers and its images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from lmflow_core.contracts.examples import ImageText
from lmflow_core.contracts.tokens import IGNORE
from lmflow_core.data.encoding import Encoder
from lmflow_core.data.examples import Located
from lmflow_core.testing.fixtures import CliResult
from lmflow_core.testing.letters import Letters, Pictures
from lmflow_core.workflows.preview_data import Piece, _preview

Cli = Callable[..., CliResult]
Write = Callable[..., Path]

ROWS: dict[str, tuple[dict[str, Any], dict[str, list[float]], list[tuple[str, str]]]] = {
    "preference": (
        {"prompt": "hello", "chosen": " world", "rejected": " brown dog", "margin": 1.5},
        {"margin": [1.5]},
        [("hello world<|im_end|>", " world<|im_end|>"), ("hello brown dog<|im_end|>", " brown dog<|im_end|>")],
    ),
    "judged": (
        {"prompt": "hello", "completion": " world", "label": False},
        {"desirable": [0.0]},
        [("hello world<|im_end|>", " world<|im_end|>")],
    ),
    "candidates": (
        {"input": "hello", "output": [{"text": " a", "score": 2}, {"text": " b", "score": -1}]},
        {"scores": [2.0, -1.0]},
        [("hello a<|im_end|>", " a<|im_end|>"), ("hello b<|im_end|>", " b<|im_end|>")],
    ),
    "prompt": (
        {"prompt": "hello"},
        {},
        [("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n", "")],
    ),
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_preview_shows_each_sequence(kind: str, lmflow_cli: Cli, tiny_model: Path, write_rows: Write) -> None:
    row, numbers, sequences = ROWS[kind]
    file = write_rows([row])
    [shown] = lmflow_cli("data", "preview", file, "--model", tiny_model, "--json").json()
    assert list(shown) == ["file", "row", "kind", "numbers", "sequences"]
    assert (shown["file"], shown["row"], shown["kind"], shown["numbers"]) == (str(file), 1, kind, numbers)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for sequence, (text, trained) in zip(shown["sequences"], sequences, strict=True):
        assert list(sequence) == ["input_ids", "labels", "text", "media"]
        assert (sequence["text"], sequence["media"]) == (text, [])
        assert tokenizer.decode(sequence["input_ids"]) == text
        assert tokenizer.decode([label for label in sequence["labels"] if label != IGNORE]) == trained
    assert lmflow_cli("data", "check", file, "--json").json()["kinds"] == {kind: 1}


def test_a_preview_for_people_tells_the_sequences_apart(lmflow_cli: Cli, tiny_model: Path, write_rows: Write) -> None:
    pair, judged = ROWS["preference"][0], ROWS["judged"][0]
    file = write_rows([pair])
    shown = lmflow_cli("data", "preview", file, "--model", tiny_model).stdout.splitlines()
    [sizes] = lmflow_cli("data", "preview", file, "--model", tiny_model, "--json").json()
    first, second = (len(sequence["input_ids"]) for sequence in sizes["sequences"])
    assert shown == [
        f"{file}, row 1: {first + second} tokens; margin 1.5",
        f"sequence 1 of 2: {first} tokens",
        "hello world<|im_end|>",
        f"sequence 2 of 2: {second} tokens",
        "hello brown dog<|im_end|>",
    ]
    shown = lmflow_cli("data", "preview", write_rows([judged]), "--model", tiny_model).stdout.splitlines()
    assert shown == [f"{file}, row 1: {first} tokens; desirable 0", "hello world<|im_end|>"]


def test_stats_count_examples_and_sequences(lmflow_cli: Cli, tiny_model: Path, write_rows: Write) -> None:
    pair = ROWS["preference"][0]
    file = write_rows([pair, {**pair, "rejected": " fox"}, pair])
    asked = ("--model", tiny_model, "--json")
    groups = [
        [(len(s["input_ids"]), sum(label != IGNORE for label in s["labels"])) for s in shown["sequences"]]
        for shown in lmflow_cli("data", "preview", file, *asked).json()
    ]
    longest = [max(length for length, _ in group) for group in groups]
    limit = max(longest) - 1
    stats = lmflow_cli("data", "stats", file, "--max-length", limit, *asked).json()
    assert (stats["examples"], stats["sequences"], stats["duplicates"]) == (3, 6, 1)
    assert stats["tokens"] == sum(length for group in groups for length, _ in group)
    assert stats["trained_tokens"] == sum(trained for group in groups for _, trained in group)
    assert stats["too_long"] == sum(length > limit for length in longest)
    assert (stats["length"]["min"], stats["length"]["max"]) == (min(longest), max(longest))
    assert sum(count for _, count in stats["histogram"]) == 3


def test_prompts_have_stats_though_nothing_is_trained(lmflow_cli: Cli, tiny_model: Path, write_rows: Write) -> None:
    file = write_rows([{"prompt": "hello"}])
    stats = lmflow_cli("data", "stats", file, "--model", tiny_model, "--json").json()
    assert (stats["examples"], stats["trained_tokens"], stats["trained_share"]) == (1, 0, 0.0)


def test_a_number_cannot_be_shown(lmflow_cli: Cli, tiny_model: Path, write_rows: Write) -> None:
    file = write_rows([{"value": 1.5}])
    result = lmflow_cli("data", "preview", file, "--model", tiny_model)
    assert (result.status, result.stdout) == (2, "")
    assert f"{file}, row 1: a value example has no sequence" in result.stderr


def test_images_are_shown_where_they_stand() -> None:
    written = "data:image/png;base64,aaaa"
    example = ImageText(("cats/tom.png", "x", written), "ab")
    [encoded] = Encoder(Letters(), None, media=Pictures()).encode([example])
    [sequence] = _preview(Letters(), Located(example, Path("data.json"), 1), encoded).sequences
    assert sequence.pieces == [
        Piece("[tom.png: 12 tokens]", trained=False),
        Piece("[x: 1 token]", trained=False),
        Piece(f"[data:image/png: {len(written)} tokens]", trained=False),
        Piece("ab|", trained=True),
    ]
    assert [(media.start, media.tokens) for media in sequence.media] == [(0, 12), (12, 1), (13, len(written))]
