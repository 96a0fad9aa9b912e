"""The output head of a language model, and whether it is all that stands between hidden states and logits."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lmflow_transformers.comparing import has_numbers
from lmflow_transformers.sharding import gathered_as_needed

_PROBE_LENGTH = 8
_plain: weakref.WeakKeyDictionary[torch.nn.Module, bool] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Head:
    """A model's output head: hidden states to logits.

    ``weight`` is (vocabulary, hidden), ``bias`` (vocabulary,) or None; logits are multiplied by ``scale``, then
    capped smoothly to ``softcap`` where it is not None.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, network: Any) -> Head:
        """Read the head of a language model of transformers, of one that sees images too."""
        linear, config = network.get_output_embeddings(), network.config.get_text_config()
        scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
        softcap = getattr(config, "final_logit_softcapping", None)
        return cls(linear.weight, getattr(linear, "bias", None), float(scale), softcap)

    def recorded(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return weight and bias for a function of autograd, detached where nothing is recorded.

        Inside such a function recording is off in any case, and a parameter would seem to want its gradient.
        """
        if torch.is_grad_enabled():
            return self.weight, self.bias
        return self.weight.detach(), None if self.bias is None else self.bias.detach()

    def cast(self, dtype: torch.dtype) -> Head:
        """Return the head with its weights in a number format, for products with hidden states of that format."""
        bias = None if self.bias is None else self.bias.to(dtype)
        return replace(self, weight=self.weight.to(dtype), bias=bias)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return float32 logits (positions, vocabulary) of hidden states (positions, hidden)."""
        logits = torch.nn.functional.linear(hidden, self.weight, self.bias).float()
        logits = logits * self.scale if self.scale != 1.0 else logits
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def logits_gradient(self, gradient: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return the gradient before cap and scale, for the gradient after them (both (positions, vocabulary))."""
        if self.softcap is not None:
            gradient = gradient * (1 - (logits / self.softcap) ** 2)
        return gradient * self.scale if self.scale != 1.0 else gradient


class HeadGradients:
    """The gradients of hidden states (positions, hidden size), of the head's weight and of its bias, chunk by chunk."""

    def __init__(
        self, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, wanted: Sequence[bool]
    ) -> None:
        """Start with none; ``wanted`` says for each of the three whether its gradient is.

        Weights may be kept more precisely than they are computed with, as the hidden states are: their gradients then
        add up in the weights' own format.
        """
        self.wanted = any(wanted[:3])
        self._weight, self._weight_wanted = weight.to(hidden.dtype), wanted[1]
        self._dtype = weight.dtype
        self._of_hidden = torch.zeros_like(hidden) if wanted[0] else None
        self._of_weight: torch.Tensor | None = None
        self._of_bias = torch.zeros_like(bias) if bias is not None and wanted[2] else None
        self._taken = False

    def add(self, gradient: torch.Tensor, hidden: torch.Tensor, part: slice) -> None:
        """Add those of one chunk.

        Args:
            gradient: of what the head's linear map gives for the chunk, (chunk, vocabulary).
            hidden: the chunk's hidden states, (chunk, hidden size).
            part: where the chunk is among the positions.
        """
        if self._of_hidden is not None:
            torch.mm(gradient, self._weight, out=self._of_hidden[part])
        if self._of_weight is not None and self._dtype == hidden.dtype:
            self._of_weight.addmm_(gradient.T, hidden)
        elif self._of_weight is not None:
            self._of_weight.add_(torch.mm(gradient.T, hidden))
        elif self._weight_wanted:
            self._of_weight = torch.mm(gradient.T, hidden).to(self._dtype)
        if self._of_bias is not None:
            self._of_bias += gradient.sum(0)

    def taken(self, factor: torch.Tensor) -> list[torch.Tensor | None]:
        """Give the three away, times a factor; None is not wanted.

        Nothing is held any longer: autograd would copy what something else holds.

        Raises:
            RuntimeError: they were given away before; the loss must be computed again for a second backward pass.
        """
        if self._taken:
            raise RuntimeError("this loss has been differentiated already: compute it again before another backward")
        self._taken = True
        if self._of_weight is None and self._weight_wanted:
            self._of_weight = torch.zeros_like(self._weight, dtype=self._dtype)
        grads = (self._of_hidden, self._of_weight, self._of_bias)
        self._of_hidden = self._of_weight = self._of_bias = None
        return [None if grad is None else grad.mul_(factor.to(grad.dtype)) for grad in grads]


def head_is_plain(network: Any) -> bool:
    """Whether trunk and :class:`Head` together give the network's own logits: tried once, on a few tokens.

    The trunk is ``base_model``, all of a network but its head. ``get_decoder()`` of one that sees is its text alone,
    and takes no notice of images.
    """
    if not _is_linear(network.get_output_embeddings()) or network.base_model is network:
        return False
    if not has_numbers(network.get_output_embeddings().weight):
        return True  # a plan, in which nothing can be tried
    if network not in _plain:
        with gathered_as_needed(network):
            _plain[network] = _gives_own_logits(network)
    return _plain[network]


@torch.no_grad()
def _gives_own_logits(network: Any) -> bool:
    device = network.get_input_embeddings().weight.device
    ids = torch.arange(_PROBE_LENGTH, device=device)[None] % network.config.get_text_config().vocab_size
    training = network.training
    network.eval()
    try:
        own = network(input_ids=ids, use_cache=False).logits[0].float()
        hidden = network.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
        return torch.allclose(Head.of(network).logits(hidden), own, atol=1e-3, rtol=1e-3)
    finally:
        network.train(training)


def _is_linear(head: Any) -> bool:
    """Whether a head is nothing but a weight and a bias; an adapter on it has more, which trains as well."""
    return head is not None and {name for name, _ in head.named_parameters()} <= {"weight", "bias"}
