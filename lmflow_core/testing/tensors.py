"""Weights compared bit by bit, and likelihoods by plain transformers; torch is imported when they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def state_of(network: Any) -> dict[str, Any]:
    """Return copies of all parameters and buffers of a network, by name."""
    named = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    return {name: tensor.detach().clone() for name, tensor in named}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names under which two sets of tensors differ by a bit, or that only one of them has."""
    import torch

    both = sorted(one.keys() & other.keys())
    changed = [name for name in both if one[name].shape != other[name].shape or not torch.equal(one[name], other[name])]
    return changed + sorted(one.keys() ^ other.keys())


def plain_nll(folder: Path, sequences: Sequence[Sequence[int]], task: str = "causal") -> list[float]:
    """Return the negative log-likelihood, in nats, of token sequences behind their first token, by transformers alone.

    Args:
        folder: of a model that ``AutoModelForCausalLM`` loads, or ``AutoModelForImageTextToText``.
        sequences: token ids.
        task: of the model's load plan, which tells which.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    factory: Any = AutoModelForImageTextToText if task == "image-text" else AutoModelForCausalLM
    network: Any = factory.from_pretrained(folder, dtype=torch.float32)
    network.eval()
    found = []
    with torch.no_grad():
        for ids in sequences:
            logits = network(input_ids=torch.tensor([list(ids)])).logits[0, :-1]
            chosen = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])
            found.append(-float(chosen.sum()))
    return found


def bytes_held(network: Any) -> int:
    """Return the bytes of the weights of a network, each counted once, with the factors of quantised ones."""
    tensors = [*network.parameters(), *network.buffers()]
    for weight in list(tensors):
        tensors += _factors(getattr(weight, "quant_state", None)) + _factors(getattr(weight, "SCB", None))
    for module in network.modules():
        tensors += _factors(getattr(getattr(module, "state", None), "SCB", None))
    return sum(
        storage.nbytes() for storage in {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}.values()
    )


def _factors(held: Any) -> list[Any]:
    """Return the tensors that bitsandbytes keeps beside a quantised weight: one, or a state with a state within."""
    import torch

    if held is None:
        return []
    if isinstance(held, torch.Tensor):
        return [held]
    parts = (held.absmax, held.code, getattr(held, "offset", None))
    return [part for part in parts if isinstance(part, torch.Tensor)] + _factors(getattr(held, "state2", None))
