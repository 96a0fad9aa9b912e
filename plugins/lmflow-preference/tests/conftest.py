"""What the tests of this plugin share: rows, and a plain loop over unpacked sequences."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from lmflow_core.testing.references import PlainLoop

_PREFIX = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


class Loop(PlainLoop):
    """A plain loop that knows the template of the tiny model."""

    def __init__(self, folder: Path, tuner: str) -> None:
        super().__init__(folder, tuner)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def answer(self, prompt: str, answer: str) -> tuple[Any, int]:
        """Return the log-probability of an answer with its stop, and how many tokens these are."""
        before, learned = (
            self._tokenizer(text, add_special_tokens=False).input_ids
            for text in (_PREFIX.format(prompt), answer + "<|im_end|>")
        )
        return self.logprob([*before, *learned], len(before)), len(learned)

    def reference(self, prompt: str, answer: str) -> float:
        """Return the log-probability of an answer as a number."""
        with torch.no_grad():
            return float(self.answer(prompt, answer)[0])


@pytest.fixture(scope="session")
def loop() -> type[Loop]:
    return Loop


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    """Return what writes rows to a file, which needs the plugin that reads them."""
    pytest.importorskip("lmflow_datasets", reason="rows are read by the plugin that knows their form")

    def write(rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return tmp_path / name

    return write
