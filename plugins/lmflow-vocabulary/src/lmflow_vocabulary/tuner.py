"""Training the rows of new tokens alone, before anything else of a model learns what they are.

Gradients of all other rows are cleared where they arise, and what trains does not decay, so that an optimizer has
nothing to change an old row by. That it did not is checked in the end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from lmflow_core.api import LmflowError, ParameterGroup, RequestError, TrainingCallback, TrainingState
from lmflow_transformers.api import CausalModel, FullTuner, parameter_groups
from lmflow_vocabulary.options import EmbeddingsOptions
from lmflow_vocabulary.record import read_extension


class EmbeddingsTuner(FullTuner):
    """Trains new rows of embeddings and head; the result is a whole model, whose other weights are as they were."""

    def __init__(self, options: EmbeddingsOptions | None = None) -> None:
        super().__init__()
        self._options = options or EmbeddingsOptions()

    def check(self, model: CausalModel) -> None:
        """Check that it is known which rows are new, and that rows are whole in each process.

        Raises:
            RequestError: neither the model nor the options tell, there is no such row, or weights or state are spread.
            ModelError: as the full tuner tells.
        """
        super().check(model)
        first, rows = self._first(model), model.config.get_text_config().vocab_size
        if first >= rows:
            raise RequestError(f"--embeddings-from {first}: the model has {rows} rows")
        if model.plan.sharded or model.plan.sharded_state:
            raise RequestError("--tuner embeddings needs whole rows, and this engine spreads them: take torchrun")

    def prepare(self, model: CausalModel, seed: int) -> None:
        """Let embeddings and head train, and clear the gradients of old rows."""
        super().prepare(model, seed)
        ours = {id(parameter) for parameter in _token_parameters(model)}
        for parameter in model.base.parameters():
            parameter.requires_grad_(id(parameter) in ours)
        first = self._first(model)
        weights: list[Any] = list(_token_parameters(model))
        for weight in weights:
            weight.register_hook(lambda gradient: _cleared(gradient, first))

    def parameter_groups(self, model: CausalModel) -> Sequence[ParameterGroup]:
        """Return embeddings and head, which do not decay: that would change old rows too."""
        return [dataclasses.replace(group, decays=False) for group in parameter_groups(model.network)]

    def callbacks(self, model: CausalModel, seed: int) -> Sequence[TrainingCallback]:
        """Add the check that old rows are as they were."""
        return [_OldRows(_token_parameters(model), self._first(model))]

    def _first(self, model: CausalModel) -> int:
        if self._options.embeddings_from is not None:
            return self._options.embeddings_from
        extension = read_extension(model.config.to_dict())
        if extension is None:
            raise RequestError(
                f"{model.reference} does not tell which of its tokens are new: give the id of the first with "
                "--embeddings-from, or extend a model with lmflow vocab extend"
            )
        return extension.first


class _OldRows(TrainingCallback):
    """Compares a digest of the old rows before and after."""

    def __init__(self, parameters: Sequence[torch.Tensor], first: int) -> None:
        self._parameters = parameters
        self._first = first
        self._before: list[int] = []

    def on_start(self, state: TrainingState) -> None:
        """Take the digest."""
        self._before = self._digests()

    def on_end(self, state: TrainingState) -> None:
        """Take it again.

        Raises:
            LmflowError: the optimizer changed a row that was not to train.
        """
        if self._digests() != self._before:
            raise LmflowError(
                "this optimizer changes rows that have no gradient, and --tuner embeddings keeps them as they were: "
                "choose another, such as --optimizer adamw"
            )

    def _digests(self) -> list[int]:
        return [_digest(parameter.detach()[: self._first]) for parameter in self._parameters]


def _digest(rows: torch.Tensor) -> int:
    """Return a number that changes with any bit of some rows, and mostly with their order."""
    bits = (
        rows.contiguous()
        .view(torch.int32 if rows.element_size() == 4 else torch.int16)
        .flatten(1 if rows.dim() > 1 else 0)
    )
    sums = bits.to(torch.int64).sum(-1) if rows.dim() > 1 else bits.to(torch.int64)
    return int((sums * torch.arange(1, len(sums) + 1, device=sums.device)).sum())


def _cleared(gradient: torch.Tensor, first: int) -> torch.Tensor:
    cleared = gradient.clone()
    cleared[:first] = 0
    return cleared


def _token_parameters(model: CausalModel) -> list[torch.nn.Parameter]:
    """Return the parameters that have a row for each token; tied ones once."""
    parts = (model.base.get_input_embeddings(), model.base.get_output_embeddings())
    found = {id(p): p for part in parts if part is not None for p in part.parameters()}
    return list(found.values())
