"""From what a user types after ``--model`` to an open model with its adapter and its load plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lmflow_core.config.request import Component
from lmflow_core.contracts.attention import Attention
from lmflow_core.contracts.model import LanguageModel, LoadPlan, ModelLoader, ModelSpec
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.contracts.spec import TORCH
from lmflow_core.contracts.tuner import Tuner
from lmflow_core.errors import ModelError
from lmflow_core.models.adapters import with_adapter
from lmflow_core.models.position_scaling import scaled_positions
from lmflow_core.plugins.references import find_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.targets import returned


@dataclass
class OpenModel:
    """A model whose tokenizer is open, the adapter that waits for its weights, and the names its plugin tells.

    ``decoder`` is the one that is used with it when none is chosen.
    """

    model: LanguageModel
    template_name: str | None
    adapter: Path | None = None
    tuner: Tuner | None = None
    hub_name: str | None = None
    decoder: str = ModelSpec.decoder

    def load(self) -> LanguageModel:
        """Load the weights and put the adapter on."""
        self.model.load()
        if self.tuner is not None and self.adapter is not None:
            self.tuner.attach(self.model, self.adapter)
        return self.model


def open_model(
    settings: ModelSettings,
    catalogue: Catalogue,
    *,
    scaling: Component | None = None,
    attention: Component | None = None,
    runtime: str | None = None,
    needed_by: str = "this command",
) -> OpenModel:
    """Open the model that the settings name; the weights wait for :meth:`OpenModel.load`.

    A folder that holds an adapter opens the adapter's base model, with the adapter on it and its positions scaled as
    they were when the adapter was trained.

    Args:
        settings: which model.
        catalogue: the components there are.
        scaling: the position scaling that was chosen, if one was.
        attention: the attention that was chosen, if one was.
        runtime: what the model must run in; None takes any.
        needed_by: what needs it, for the message.

    Raises:
        ModelError: the reference names no model, or the adapter's folder holds none.
        RequestError: the model does not run in the runtime, its positions cannot be scaled so, or the attention cannot
            be had.
        PluginError: the plugin that opens it is missing or broken.
    """
    asked = settings
    settings, adapter, tuner = with_adapter(settings, catalogue)
    runtime, needed_by = (TORCH, "the adapter") if tuner and runtime is None else (runtime, needed_by)
    named_by = adapter if settings.model != asked.model else None
    with _told_with(named_by):
        provided = find_model(settings.model, catalogue, runtime, needed_by)
    if settings.adapter is not None and tuner is None and settings.adapter.suffix != provided.spec.adapter_suffix:
        raise ModelError(f"{settings.adapter} is a file that model {provided.spec.name!r} cannot put on itself")
    loader: ModelLoader = catalogue.of(ModelSpec).load(provided.qualified)()
    with _told_with(named_by):
        model = loader.open(settings.model, settings)
    positions = scaled_positions(model, settings, scaling, adapter, catalogue)
    plan = replace(model.plan, positions=positions, attention=_implementation(attention, settings, catalogue))
    if adapter is not None and tuner is not None:
        plan = returned(tuner.base_plan(adapter, plan), LoadPlan, tuner, "base_plan")
    model.accept(plan)
    if adapter is not None:
        model.adapter = adapter
    return OpenModel(model, provided.spec.template, adapter, tuner, provided.spec.hub_name, provided.spec.decoder)


@contextmanager
def _told_with(adapter: Path | None) -> Iterator[None]:
    """Tell of a model that cannot be opened which adapter had named it."""
    try:
        yield
    except ModelError as error:
        if adapter is None:
            raise
        hint = f"the base model of the adapter in {adapter}; --model MODEL --adapter {adapter} takes another"
        raise ModelError(f"{error} ({hint})") from error


def _implementation(chosen: Component | None, settings: ModelSettings, catalogue: Catalogue) -> str | None:
    if chosen is None:
        return None
    attention: Attention = chosen.make(catalogue)
    return attention.implementation(settings.device)
