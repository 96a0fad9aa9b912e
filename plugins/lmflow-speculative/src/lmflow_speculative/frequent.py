"""Drafts of frequent tokens only: a draft model whose head has a few thousand rows is much faster.

After FR-Spec (Zhao et al., arXiv:2502.14856). Answers stay exact: a token that is never drafted has q = 0.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from lmflow_core.api import IGNORE, ModelError, TrainingCallback, TrainingState

VOCABULARY_FILE = "draft_vocabulary.json"


class FrequentTokens(TrainingCallback):
    """Counts the tokens that a run learns, and keeps the most frequent.

    Args:
        size: the most tokens to keep.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._counts: Counter[int] = Counter()

    def on_start(self, state: TrainingState) -> None:
        """Count."""
        examples = (state.data[position] for position in range(len(state.data)))
        sequences = (sequence for example in examples for sequence in example.sequences)
        self._counts = Counter(label for sequence in sequences for label in sequence.labels)
        del self._counts[IGNORE]

    def write(self, folder: Path) -> None:
        """Write the ids of the most frequent tokens, in order of their ids."""
        kept = sorted(token for token, _ in self._counts.most_common(self._size))
        (folder / VOCABULARY_FILE).write_text(json.dumps({"tokens": kept}) + "\n", encoding="utf-8")


def read_vocabulary(folder: Path, size: int) -> list[int] | None:
    """Return the ids of the tokens that the draft model in a folder drafts; None when all.

    Args:
        folder: of the draft model.
        size: how many tokens its head has.

    Raises:
        ModelError: the file does not hold ids of the model's.
    """
    file = folder / VOCABULARY_FILE
    if not file.is_file():
        return None
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))["tokens"]
        if kept and all(type(token) is int and 0 <= token < size for token in kept) and len(set(kept)) == len(kept):
            return list(kept)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise ModelError(f"{file} is no list of the draft model's tokens: delete it, or make the draft model anew")


def keep_rows(network: Any, tokens: list[int]) -> None:
    """Give a network a head for some tokens only, in their order."""
    head = network.get_output_embeddings()
    kept = torch.tensor(tokens, device=head.weight.device)
    short = torch.nn.Linear(head.in_features, len(tokens), bias=head.bias is not None, device="meta")
    short.weight = torch.nn.Parameter(head.weight.detach()[kept], requires_grad=False)
    if head.bias is not None:
        short.bias = torch.nn.Parameter(head.bias.detach()[kept], requires_grad=False)
    network.set_output_embeddings(short)
