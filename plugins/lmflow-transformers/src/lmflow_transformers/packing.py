"""Batches without padding: examples lie end to end in one row, and their boundaries travel with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lmflow_core.api import IGNORE, Encoded


def lay_out(examples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """Lay examples end to end.

    Returns:
        ``input_ids`` and ``position_ids`` of shape (1, T), int64, positions restarting at each example;
        ``shift_labels`` (1, T), the token that follows each position where it is learned, else -100, so that no
        example predicts the next one's first token; ``cu_seq_lens_q`` (examples + 1,), int32, the boundaries.
    """
    lengths = [len(example.input_ids) for example in examples]
    targets = [token for example in examples for token in (*example.labels[1:], IGNORE)]
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return {
        "input_ids": torch.tensor([[token for example in examples for token in example.input_ids]]),
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "shift_labels": torch.tensor([targets]),
        "cu_seq_lens_q": ends,
    }
