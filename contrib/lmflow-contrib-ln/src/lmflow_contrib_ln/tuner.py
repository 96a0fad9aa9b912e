"""LN-tuning: the gains and biases of normalisations train, everything else is frozen.

Qi et al., arXiv:2211.08682, for language models; Zhao et al., arXiv:2312.11420, who turn language models into those
that see. What trains is less than a thousandth of a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch

from lmflow_contrib_ln.norms import CONFIG, norm_parameters, read_base, read_norms, write_norms
from lmflow_core.api import Destination, ModelError, RequestError
from lmflow_transformers.api import CausalModel, FullTuner


class LnTuner(FullTuner):
    """Trains the normalisations and keeps them as an adapter.

    As in full fine-tuning, weights are float32 while they train: a gain near one does not move in half precision.
    """

    def __init__(self, options: None = None) -> None:
        super().__init__(options)
        self._start: dict[str, torch.Tensor] = {}

    def check(self, model: CausalModel) -> None:
        """Check that what the model carries, if anything, is an adapter of this tuner.

        Raises:
            ModelError: it is another one, or the model is given a head, which its adapters have no place for.
        """
        if model.plan.task == "regression":
            raise ModelError("--tuner ln keeps no head, which a model that gives a number needs: take --tuner lora")
        if model.adapter is not None and not (model.adapter / CONFIG).is_file():
            raise ModelError(f"--tuner ln on the adapter in {model.adapter}: merge it first with lmflow merge")

    def prepare(self, model: CausalModel, seed: int) -> None:
        """Let the normalisations train, and nothing else.

        Raises:
            RequestError: they have no weights.
        """
        norms = norm_parameters(model.network)
        if not norms:
            raise RequestError(f"--tuner ln: the normalisations of {model.reference} have no weights; use --tuner lora")
        model.network.requires_grad_(False)
        for parameter in norms.values():
            parameter.requires_grad_(True)
        self._start = {name: parameter.detach().clone() for name, parameter in norms.items()}

    def reference(self, model: CausalModel) -> AbstractContextManager[Any] | None:
        """Return a context with the normalisations from before training, unless the engine has spread them."""
        return None if model.plan.sharded else _exchanged(norm_parameters(model.network), self._start)

    def save(self, model: CausalModel, destination: Destination) -> None:
        """Write the normalisations and the tokenizer."""
        if not destination.is_main:
            return
        norms: Mapping[str, torch.Tensor] = norm_parameters(model.network)
        if destination.weights is not None:
            norms = {name: destination.weights[name] for name in norms}
        write_norms(destination.folder, _base_of(model), norms)
        model.save_tokenizer(destination.folder, destination.chat_template)

    def attach(self, model: CausalModel, folder: Path) -> None:
        """Put saved normalisations in the place of a loaded model's.

        Raises:
            ModelError: they are damaged, or of another model.
        """
        norms = norm_parameters(model.network)
        trained = read_norms(folder, {name: tuple(parameter.shape) for name, parameter in norms.items()})
        with torch.no_grad():
            for name, parameter in norms.items():
                parameter.copy_(trained[name])

    def base_reference(self, folder: Path) -> str | None:
        """Return the model that an adapter was made for."""
        return read_base(folder)


@contextmanager
def _exchanged(parameters: Mapping[str, torch.nn.Parameter], others: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """For the time of the context, let parameters hold other numbers.

    Their storage is exchanged, not written to: a pass that went before still finds in backward what it saw.
    """
    own = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = others[name].to(parameter.device)
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = own[name]


def _base_of(model: CausalModel) -> str:
    """Return what opens the model from anywhere: its name, or the whole path where it is a file or folder."""
    path = Path(model.reference).expanduser()
    return str(path.absolute()) if path.exists() else model.reference
