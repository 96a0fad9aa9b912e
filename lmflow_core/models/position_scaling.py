"""Position scaling: which scheme a model is opened with, and how far its positions are to reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmflow_core.config.request import Component, resolve
from lmflow_core.config.schema import ADAPTER_RUN
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.position_scaling import PositionScalingSpec, ScaledPositions
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.errors import RequestError
from lmflow_core.files.output import RUN_FILE
from lmflow_core.models.adapters import adapter_options
from lmflow_core.plugins.registry import Catalogue


def scaled_positions(
    model: LanguageModel,
    settings: ModelSettings,
    chosen: Component | None,
    adapter: Path | None,
    catalogue: Catalogue,
) -> ScaledPositions | None:
    """Return how an open model's positions are scaled: as the user asks or, with an adapter, as when it was trained.

    Raises:
        RequestError: the model reaches the target without scaling, or the adapter was trained with another.
        UnknownNameError: the adapter's scaling is that of a plugin which is not there.
    """
    if chosen is None and settings.position_scaling is not None:
        chosen = _component(settings.position_scaling, catalogue)
    recorded, trained = _recorded(adapter, catalogue) if adapter else (None, settings)
    if chosen is None:
        chosen, settings = recorded, trained
    elif adapter is not None and _wish(chosen, settings) != _wish(recorded, trained):
        raise RequestError(
            f"{adapter} was trained with {_described(recorded, trained)}, not with {_described(chosen, settings)}: "
            "leave out --position-scaling"
        )
    if chosen is None:
        return None
    scheme = catalogue.of(PositionScalingSpec).load(chosen.provided.qualified)
    return ScaledPositions(chosen.name, scheme, _factor(model, settings), chosen.options)


def _component(name: str, catalogue: Catalogue) -> Component:
    """Return a scheme with its own defaults, for a command that does not take the options of schemes."""
    provided = catalogue.of(PositionScalingSpec).find(name)
    options = provided.spec.options
    return Component(catalogue.of(PositionScalingSpec).unambiguous(provided), provided, options() if options else None)


def _factor(model: LanguageModel, settings: ModelSettings) -> float:
    if settings.position_scaling_factor is not None:
        return settings.position_scaling_factor
    length, target = model.context_length, settings.target_length
    if length is None or target is None:
        raise RequestError(
            f"--target-length: {model.reference} does not tell its length; use --position-scaling-factor"
        )
    if target < length:
        raise RequestError(f"--target-length {target}: the model reaches {length} tokens without scaling")
    return target / length


def _recorded(adapter: Path, catalogue: Catalogue) -> tuple[Component | None, ModelSettings]:
    """Return the scaling that an adapter's ``run.json`` tells of, with the settings that say how far."""
    values: dict[str, Any] = {"model": str(adapter)}
    options = adapter_options(adapter)
    if options.get("position_scaling"):
        own = {"position_scaling", "position_scaling_factor", "target_length"}
        scheme = catalogue.of(PositionScalingSpec).spec(options["position_scaling"]).options
        own |= set(getattr(scheme, "__dataclass_fields__", ()))
        values |= {name: options[name] for name in own if name in options}
    request = resolve(ADAPTER_RUN, values, catalogue, f"{adapter / RUN_FILE}: ")
    return request.components.get("position_scaling"), request.get(ModelSettings)


def _wish(chosen: Component | None, settings: ModelSettings) -> tuple[Any, ...]:
    name = chosen.provided.qualified if chosen else None
    return name, settings.position_scaling_factor, settings.target_length, chosen.options if chosen else None


def _described(chosen: Component | None, settings: ModelSettings) -> str:
    if chosen is None:
        return "no position scaling"
    reach = settings.position_scaling_factor or f"to {settings.target_length} tokens"
    return f"--position-scaling {chosen.name} {reach}"
