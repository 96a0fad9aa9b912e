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
