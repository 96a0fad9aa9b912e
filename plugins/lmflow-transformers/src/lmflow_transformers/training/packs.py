"""What is trained on, a pack at a time, and what of a batch goes through the network at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from lmflow_core.api import EncodedDataset, EncodedExample
from lmflow_transformers.batches import Batch
from lmflow_transformers.packing import best_fit

Pack = list[EncodedExample]


class Packs(Dataset[Pack]):
    """What is trained on, a pack at a time: single examples, or best-fit packs when a length is given.

    Behind the last one there is an empty one, which :class:`EvenShares` asks for.
    """

    def __init__(self, examples: EncodedDataset, pack_length: int | None, seed: int) -> None:
        self._examples = examples
        self._packs: Sequence[Sequence[int]] = [[position] for position in range(len(examples))]
        if pack_length is not None:
            self._packs = best_fit(examples.lengths(), pack_length, seed)

    def __len__(self) -> int:
        return len(self._packs)

    def __getitem__(self, position: int) -> Pack:
        if position == len(self._packs):
            return []
        return [self._examples[number] for number in self._packs[position]]


class EvenShares(Sampler[int]):
    """The order of another sampler with as many empty packs behind it as give every process the same number of batches.

    Processes would else begin anew with the first packs, and learn them twice.
    """

    def __init__(self, sampler: Any, together: int) -> None:
        """Go on from a sampler; ``together`` is the number of packs in one batch of every process."""
        self._sampler, self._together = sampler, together

    def __len__(self) -> int:
        return -(-len(self._sampler) // self._together) * self._together

    def __iter__(self) -> Iterator[int]:
        yield from self._sampler
        packs = len(self._sampler)
        yield from [packs] * (len(self) - packs)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle otherwise in each epoch."""
        self._sampler.set_epoch(epoch)


@dataclass(frozen=True)
class MicroBatches:
    """A batch of a step: what goes through the network one after the other."""

    batches: tuple[Batch, ...]

    def to(self, device: torch.device, non_blocking: bool = False) -> MicroBatches:
        """Return them on a device."""
        return MicroBatches(tuple(batch.to(device, non_blocking) for batch in self.batches))
