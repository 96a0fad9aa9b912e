"""What is trained on, a pack at a time, and what of a batch goes through the network at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from lmflow_core.api import EncodedDataset, EncodedExample
from lmflow_transformers.batches import Batch
from lmflow_transformers.packing import best_fit

Pack = list[EncodedExample]


class Packs(Dataset[Pack]):
    """What is trained on, a pack at a time: single examples, or best-fit packs when a length is given."""

    def __init__(self, examples: EncodedDataset, pack_length: int | None, seed: int) -> None:
        self._examples = examples
        self._packs: Sequence[Sequence[int]] = [[position] for position in range(len(examples))]
        if pack_length is not None:
            lengths = [examples[position].tokens for position in range(len(examples))]
            self._packs = best_fit(lengths, pack_length, seed)

    def __len__(self) -> int:
        return len(self._packs)

    def __getitem__(self, position: int) -> Pack:
        return [self._examples[number] for number in self._packs[position]]


@dataclass(frozen=True)
class MicroBatches:
    """A batch of a step: what goes through the network one after the other."""

    batches: tuple[Batch, ...]

    def to(self, device: torch.device, non_blocking: bool = False) -> MicroBatches:
        """Return them on a device."""
        return MicroBatches(tuple(batch.to(device, non_blocking) for batch in self.batches))
