"""Sliding windows: every token scored once, with as much before it as there is room for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lmflow_core.api import IGNORE, Encoded
from lmflow_core.testing.fixtures import CliResult
from lmflow_core.workflows.windows import windows

Cli = Callable[..., CliResult]


def _document(length: int) -> Encoded:
    return Encoded(list(range(length)), list(range(length)))


@pytest.mark.parametrize("length", [1, 2, 9, 10, 11, 13, 14, 37])
@pytest.mark.parametrize(("context", "stride"), [(10, 4), (10, 9), (10, 1), (64, 8)])
def test_every_token_but_the_first_is_scored_once_with_room_before_it(length: int, context: int, stride: int) -> None:
    scored: list[int] = []
    for window in windows([_document(length)], context, stride):
        assert len(window.input_ids) == min(context, length)
        for place, label in enumerate(window.labels):
            if place and label != IGNORE:
                assert label == window.input_ids[place]
                assert place >= min(label, context - stride)
                scored.append(label)
    assert scored == list(range(1, length))


def test_prompts_are_not_scored_and_documents_stay_apart() -> None:
    prompted = Encoded([1, 2, 3, 4], [IGNORE, IGNORE, 3, 4])
    found = list(windows([prompted, Encoded([7, 8], [7, 8])], 3, 1))
    assert found == [
        Encoded([1, 2, 3], [IGNORE, IGNORE, 3]),
        Encoded([2, 3, 4], [IGNORE, IGNORE, 4]),
        Encoded([7, 8], [7, 8]),
    ]


def test_the_perplexity_is_that_of_a_plain_loop(
    tiny_model: Path, tmp_path: Path, lmflow_cli: Cli, write_rows: Callable[..., Path]
) -> None:
    data = write_rows([{"text": "the quick brown fox jumps over the lazy dog " * 9}, {"text": "hello world"}])
    result = lmflow_cli("evaluate", "--model", tiny_model, "--dataset", data, "--context", 24, "--stride", 8, "--json")
    assert result.status == 0, result.stderr
    rows = lmflow_cli("data", "preview", data, "--model", tiny_model, "--json").json()
    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    total, count = 0.0, 0
    for row in rows["rows"] if isinstance(rows, dict) else rows:
        ids = row["input_ids"]
        for place in range(1, len(ids)):
            # The window that scores this token: the first holds 24 tokens, each later one ends 8 further.
            end = 24 if place < 24 else 24 + 8 * math.ceil((place - 23) / 8)
            end = min(end, len(ids))
            start = max(0, end - 24)
            with torch.no_grad():
                logits = network(torch.tensor([ids[start:place]])).logits[0, -1]
            total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[place])))
            count += 1
    found = result.json()
    assert found["tokens"] == count
    assert found["nll_per_token"] == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--stride", 4), "--stride needs --context"),
        (("--context", 8, "--stride", 8), "--stride must be smaller than --context"),
        (("--context", 8), "--dataset is required"),
        (("--context", 8, "--benchmark", "passkey"), "not for --benchmark"),
        (("--benchmark", "passkeys"), "unknown benchmark 'passkeys'. Did you mean 'passkey'"),
    ],
)
def test_wrong_requests_are_clear(flags: tuple[object, ...], message: str, tiny_model: Path, lmflow_cli: Cli) -> None:
    result = lmflow_cli("evaluate", "--model", tiny_model, *flags)
    assert result.status == 2
    assert message in result.stderr


def test_a_benchmark_leaves_its_figures_and_a_picture(tiny_model: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("lmflow_position_scaling")
    file = tmp_path / "passkey.json"
    flags = ("--passkey-lengths", "180,200", "--passkey-depths", 2, "--passkey-trials", 1, "--output-file", file)
    result = lmflow_cli("evaluate", "--model", tiny_model, "--benchmark", "passkey", *flags)
    if "shortest prompt" in result.stderr:
        flags = ("--passkey-lengths", "600,700", *flags[2:])
        result = lmflow_cli("evaluate", "--model", tiny_model, "--benchmark", "passkey", *flags)
    assert result.status == 0, result.stderr
    assert "depth of the key / length (tokens)" in result.stdout
    written = json.loads(file.read_text())
    assert written["metrics"]["accuracy"] == 0.0
    assert len(written["grid"]["values"]) == 2
    assert (tmp_path / "passkey.png").read_bytes().startswith(b"\x89PNG")
