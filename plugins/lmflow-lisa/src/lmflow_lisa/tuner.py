"""LISA: layerwise importance sampled AdamW (Pan et al., arXiv:2403.17919).

Embeddings, head and final norm always train; of the layers, a few sampled at random train until the next sample. Memory
is that of the layers that train: the optimizer keeps no state for any other.
"""

from __future__ import annotations

from collections.abc import Sequence

from lmflow_core.api import TrainingCallback
from lmflow_lisa.layers import always_on, check_counts, find_layers
from lmflow_lisa.options import LisaOptions
from lmflow_lisa.switching import LayerSwitch
from lmflow_transformers.api import CausalModel, FullTuner


class LisaTuner(FullTuner):
    """Trains a whole model, a few layers at a time; the result is a whole model."""

    freezes_while_training = True

    def __init__(self, options: LisaOptions | None = None) -> None:
        super().__init__()
        self._options = options or LisaOptions()

    def prepare(self, model: CausalModel, seed: int) -> None:
        """Freeze what the options keep out; layers are sampled when training starts.

        Raises:
            RequestError: the model's layers are not found, or fewer than are to be sampled.
        """
        super().prepare(model, seed)
        layers = find_layers(model.base, self._options.lisa_layers_attribute)
        check_counts(len(layers), self._options.lisa_activated_layers, self._options.lisa_layer_weights)
        frozen = {
            "embeddings": self._options.lisa_freeze_embeddings,
            "head": self._options.lisa_freeze_head,
            "norm": self._options.lisa_freeze_norm,
        }
        for name, parameters in always_on(model.base, layers).items():
            for parameter in parameters:
                parameter.requires_grad_(not frozen[name])

    def callbacks(self, model: CausalModel, seed: int) -> Sequence[TrainingCallback]:
        """Add the switch of layers."""
        return [LayerSwitch(find_layers(model.base, self._options.lisa_layers_attribute), self._options, seed)]
