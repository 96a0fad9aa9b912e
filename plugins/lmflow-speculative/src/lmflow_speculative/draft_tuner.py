"""The tuner ``draft``: cut a model down to a few layers and train those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmflow_core.api import Destination, ModelError, RequestError, TrainingCallback
from lmflow_speculative.cutting import check_cut, chosen_layers, cut
from lmflow_speculative.frequent import FrequentTokens
from lmflow_speculative.networks import trunk
from lmflow_speculative.options import DraftOptions
from lmflow_transformers.api import CausalModel, FullTuner


class DraftTuner(FullTuner):
    """Trains copies of some layers between the model's own embeddings and head; the result is a whole, smaller model.

    Attributes:
        whole: the transformers model that was cut; unchanged.
    """

    def __init__(self, options: DraftOptions | None = None) -> None:
        super().__init__()
        self._options = options or DraftOptions()
        self._frequent: FrequentTokens | None = None
        self.whole: Any = None

    def check(self, model: CausalModel) -> None:
        """Check that the model can be cut to so many layers.

        Raises:
            ModelError: it carries an adapter, has no list of layers, or layers that depend on their place.
            RequestError: it has not more layers than that, or its weights are to be spread over processes.
        """
        if model.plan.sharded:
            raise RequestError(
                "--tuner draft takes layers out of a model, whose weights this engine spreads: take --engine torchrun"
            )
        if model.adapter is not None:
            raise ModelError("--tuner draft on a model with an adapter: merge it first with lmflow merge")
        check_cut(model, self._options)

    def prepare(self, model: CausalModel, seed: int) -> None:
        """Put the draft in the place of the model; its layers and norms train."""
        self.whole = model.base
        places = chosen_layers(len(trunk(self.whole).layers), self._options)
        model.network, trained = cut(self.whole, places)
        model.network.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)

    def callbacks(self, model: CausalModel, seed: int) -> Sequence[TrainingCallback]:
        """Count tokens, when drafts are to be of the frequent ones only."""
        if self._options.draft_vocabulary is None:
            return ()
        self._frequent = FrequentTokens(self._options.draft_vocabulary)
        return [self._frequent]

    def save(self, model: CausalModel, destination: Destination) -> None:
        """Write the draft model, and beside it the tokens it drafts."""
        super().save(model, destination)
        if self._frequent is not None and destination.is_main:
            self._frequent.write(destination.folder)
