"""From what a user types after ``--model`` and ``--template`` to an open model and a bound template."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lmflow_core.config.request import Component
from lmflow_core.contracts.attention import Attention
from lmflow_core.contracts.model import LanguageModel, ModelLoader, ModelSpec
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.contracts.spec import TORCH
from lmflow_core.contracts.tuner import Tuner, TunerSpec
from lmflow_core.errors import ModelError, RequestError
from lmflow_core.models.position_scaling import scale_positions
from lmflow_core.plugins.references import find_model
from lmflow_core.plugins.registry import Catalogue


@dataclass
class OpenModel:
    """A model whose tokenizer is open, and the adapter that waits for its weights."""

    model: LanguageModel
    template_name: str | None
    adapter: Path | None = None
    tuner: Tuner | None = None

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
    settings, adapter, tuner = _with_adapter(settings, catalogue)
    runtime, needed_by = (TORCH, "the adapter") if tuner and runtime is None else (runtime, needed_by)
    provided = find_model(settings.model, catalogue, runtime, needed_by)
    if settings.adapter is not None and tuner is None and settings.adapter.suffix != provided.spec.adapter_suffix:
        raise ModelError(f"{settings.adapter} is a file that model {provided.spec.name!r} cannot put on itself")
    loader: ModelLoader = catalogue.of(ModelSpec).load(provided.qualified)()
    model = loader.open(settings.model, settings)
    scale_positions(model, settings, scaling, adapter, catalogue)
    if attention is not None:
        _choose_attention(attention, model, settings, provided.spec.runtime, catalogue)
    if adapter is not None:
        model.adapter = adapter
    return OpenModel(model, provided.spec.template, adapter, tuner)


def _choose_attention(
    chosen: Component, model: LanguageModel, settings: ModelSettings, runtime: str, catalogue: Catalogue
) -> None:
    attend_with = getattr(model, "attend_with", None)
    if attend_with is None:
        raise RequestError(
            f"--attention {chosen.name}: {model.reference} runs in {runtime}, which attends in its own way: "
            "leave --attention out"
        )
    implementation: Attention = chosen.make(catalogue)
    attend_with(implementation.implementation(settings.device))


def _with_adapter(settings: ModelSettings, catalogue: Catalogue) -> tuple[ModelSettings, Path | None, Tuner | None]:
    if settings.adapter is not None and settings.adapter.is_file():
        return settings, None, None
    if settings.adapter is not None:
        return settings, settings.adapter, _adapter_tuner(settings.adapter, catalogue)
    folder = Path(settings.model).expanduser()
    if not folder.is_dir() or not _adapter_owners(folder, catalogue):
        return settings, None, None
    tuner = _adapter_tuner(folder, catalogue)
    base = tuner.base_reference(folder)
    if base is None:
        raise ModelError(f"{folder} holds an adapter that does not tell its base model: add --adapter and --model")
    return replace(settings, model=base), folder, tuner


def _adapter_owners(folder: Path, catalogue: Catalogue) -> list[str]:
    return [
        p.qualified for p in catalogue.of(TunerSpec) if p.spec.adapter_file and (folder / p.spec.adapter_file).is_file()
    ]


def _adapter_tuner(folder: Path, catalogue: Catalogue) -> Tuner:
    owners = _adapter_owners(folder, catalogue)
    if not owners:
        marks = sorted({p.spec.adapter_file for p in catalogue.of(TunerSpec) if p.spec.adapter_file})
        raise ModelError(f"{folder} holds no adapter (looked for {', '.join(marks) or 'none: no plugin makes any'})")
    spec = catalogue.of(TunerSpec).spec(owners[0])
    tuner: Tuner = catalogue.of(TunerSpec).load(owners[0])(spec.options() if spec.options else None)
    return tuner
