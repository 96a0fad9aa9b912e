"""LISA: layerwise importance sampled AdamW (Pan et al., arXiv:2403.17919).

Embeddings, head and final norm always train; of the layers, a few sampled at random train until the next sample. Memory
is that of the layers that train: the optimizer keeps no state for any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lmflow_core.api import ParameterGroup, RequestError, TrainingCallback
from lmflow_lisa.layers import always_on, check_counts, find_layers
from lmflow_lisa.options import LisaOptions
from lmflow_lisa.switching import LayerSwitch
from lmflow_transformers.api import CausalModel, FullTuner, freeze_other_parts


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
        freeze_other_parts(model)

    def check(self, model: CausalModel) -> None:
        """Check the model, and that state can be offloaded where it is asked for.

        Raises:
            RequestError: state is to be offloaded that is spread over processes.
        """
        super().check(model)
        if self._options.lisa_inactive_state == "offload" and (model.plan.sharded or model.plan.sharded_state):
            raise RequestError(
                "--lisa-inactive-state offload keeps state in each process, and this engine spreads it: leave it out, "
                "or take --engine torchrun"
            )

    def parameter_groups(self, model: CausalModel) -> Sequence[ParameterGroup]:
        """Return what trains; each layer in groups of its own where an engine keeps groups in one piece."""
        groups = super().parameter_groups(model)
        if not model.plan.sharded_state:
            return groups
        layers = find_layers(model.base, self._options.lisa_layers_attribute)
        numbers = {id(parameter): number for number, layer in enumerate(layers) for parameter in layer.parameters()}
        return [part for group in groups for part in _by_layer(group, numbers)]

    def callbacks(self, model: CausalModel, seed: int) -> Sequence[TrainingCallback]:
        """Add the switch of layers."""
        return [LayerSwitch(find_layers(model.base, self._options.lisa_layers_attribute), self._options, seed)]


def _by_layer(group: ParameterGroup, numbers: Mapping[int, int]) -> Iterator[ParameterGroup]:
    """Yield a group's parameters outside of the layers, then those of each; ``numbers`` is the layer of each by id."""
    parts: dict[int, dict[str, Any]] = {}
    for name, parameter in group.parameters.items():
        parts.setdefault(numbers.get(id(parameter), -1), {})[name] = parameter
    for _, parameters in sorted(parts.items()):
        yield replace(group, parameters=parameters)
