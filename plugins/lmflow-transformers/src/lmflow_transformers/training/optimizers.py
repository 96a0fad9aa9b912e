"""AdamW over a network's parameters, for tuners that make the optimizer themselves."""

from __future__ import annotations

from typing import Any

import torch

from lmflow_core.api import TrainingSettings


def adamw(network: Any, settings: TrainingSettings) -> torch.optim.AdamW:
    """Return a fused AdamW over every parameter that trains; biases and norms, of one dimension, do not decay."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr if settings.lr is not None else 0.0,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        fused=True,
    )


def allocate_state(optimizer: torch.optim.Optimizer) -> None:
    """Give a fresh AdamW its (zero) state before training instead of in its first step.

    In the first step it would settle in the gaps between activations, and the longer batches of later steps would
    no longer find room there: on two cores full training of 135 million parameters held 0.9 GB more.
    """
    if type(optimizer) is not torch.optim.AdamW or optimizer.state:
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
