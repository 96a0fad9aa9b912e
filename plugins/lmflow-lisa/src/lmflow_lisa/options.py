"""Options of the LISA tuner; LMFlow's names and defaults."""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option


@dataclass(frozen=True, kw_only=True)
class LisaOptions:
    """What trains, and how often layers are sampled."""

    lisa_activated_layers: int = option(2, help="Layers that train at a time.", minimum=1)
    lisa_interval_steps: int = option(
        20, help="Optimizer steps between samples.", minimum=1, aliases=("lisa_step_interval",)
    )
    lisa_layer_weights: tuple[float, ...] = option(
        (), help="Relative chance of each layer, first to last; equal when left out.", minimum=0
    )
    lisa_inactive_state: str = option(
        "drop",
        help="What becomes of a layer's optimizer state when it is frozen again.",
        choices=("drop", "offload"),
    )
    lisa_layers_attribute: str | None = option(
        None, help="Where the layers are in the model, such as model.layers; found when left out."
    )
    lisa_freeze_embeddings: bool = option(False, help="Keep the input embeddings as they are, and a head tied to them.")
    lisa_freeze_head: bool = option(False, help="Keep the output head as it is, unless it is tied.")
    lisa_freeze_norm: bool = option(False, help="Keep the final norm as it is.")
