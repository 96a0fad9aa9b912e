"""From what a user types after ``--model`` and ``--template`` to an open model and a bound template."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lmflow_core import console
from lmflow_core.contracts import Attention, LanguageModel, ModelLoader, Template, Tokenizer, Tuner
from lmflow_core.conversations import Example, has_conversation
from lmflow_core.errors import ModelError, PluginLoadError, RequestError
from lmflow_core.finding import find_model
from lmflow_core.job import Component
from lmflow_core.registry import Catalogue
from lmflow_core.scaling import scale_positions
from lmflow_core.settings import ModelSettings
from lmflow_core.specs import TORCH
from lmflow_core.templates.files import is_template_file, load_template_file
from lmflow_core.templates.matching import most_alike
from lmflow_core.templates.own import JinjaTemplate

OWN_TEMPLATE = "tokenizer"


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
    loader: ModelLoader = catalogue.models.load(provided.qualified)()
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
    return [p.qualified for p in catalogue.tuners if p.spec.adapter_file and (folder / p.spec.adapter_file).is_file()]


def _adapter_tuner(folder: Path, catalogue: Catalogue) -> Tuner:
    owners = _adapter_owners(folder, catalogue)
    if not owners:
        marks = sorted({p.spec.adapter_file for p in catalogue.tuners if p.spec.adapter_file})
        raise ModelError(f"{folder} holds no adapter (looked for {', '.join(marks) or 'none: no plugin makes any'})")
    spec = catalogue.tuners.spec(owners[0])
    tuner: Tuner = catalogue.tuners.load(owners[0])(spec.options() if spec.options else None)
    return tuner


def choose_template(
    asked: str | None, opened: OpenModel, catalogue: Catalogue, *, needed: bool = True
) -> tuple[str | None, Template | None]:
    """Return the template to use and its name: the one asked for, the model's, or the one that renders as it does.

    Where none does, the model's own is used as it is. ``asked`` is a name, a file, or ``tokenizer``: the model's own.

    Raises:
        UnknownNameError: the name asked for is unknown.
        RequestError: the template asked for cannot be used, or ``needed`` is set and the model does not tell its own.
    """
    tokenizer = opened.model.tokenizer
    name = asked or opened.template_name
    if name is None:
        try:
            name = _model_decides(tokenizer, catalogue)
            template = load_template(name, tokenizer, catalogue)
        except RequestError:
            if needed:
                raise
            return None, None
    else:
        template = load_template(name, tokenizer, catalogue)
    if name != OWN_TEMPLATE and not is_template_file(name):
        name = catalogue.templates.unambiguous(catalogue.templates.find(name))
    return name, template


def _model_decides(tokenizer: Tokenizer, catalogue: Catalogue) -> str:
    known = ", ".join(catalogue.templates.names())
    if tokenizer.chat_template is None:
        raise RequestError(f"the model has no chat template: choose one with --template NAME. Known: {known}")
    fitting = matching_templates(tokenizer, catalogue)
    if len(fitting) > 1:
        choices = "|".join([*fitting, OWN_TEMPLATE])
        raise RequestError(f"several templates render as the model's own does: choose one with --template {choices}")
    return fitting[0] if fitting else OWN_TEMPLATE


def choose_template_for(
    examples: Iterable[Example], asked: str | None, opened: OpenModel, catalogue: Catalogue
) -> tuple[str | None, Template | None]:
    """Return the template for some examples and its name; only conversations need one.

    Raises:
        UnknownNameError, RequestError: as :func:`choose_template` does.
    """
    needed = any(map(has_conversation, examples))
    return choose_template(asked, opened, catalogue, needed=needed)


def load_template(name: str, tokenizer: Tokenizer, catalogue: Catalogue) -> Template:
    """Return a template bound to a tokenizer: by its name, from a file, or the tokenizer's own.

    Raises:
        UnknownNameError: the name is unknown.
        RequestError: the file or the tokenizer holds no template that can be used.
    """
    if name == OWN_TEMPLATE:
        return _own_template(tokenizer)
    template = load_template_file(name, tokenizer) if is_template_file(name) else catalogue.templates.load(name)
    return template.bind(tokenizer.bos_token, tokenizer.eos)


def _own_template(tokenizer: Tokenizer) -> Template:
    if tokenizer.chat_template is None:
        raise RequestError("the model has no chat template of its own: choose one with --template NAME")
    try:
        return JinjaTemplate(tokenizer, tokenizer.chat_template)
    except ValueError as error:
        raise RequestError(f"the model's own template cannot be used: {error}") from error


def matching_templates(tokenizer: Tokenizer, catalogue: Catalogue) -> list[str]:
    """Return the templates that render some probing conversations as the model's own template does.

    A template that cannot be loaded is left out, with a note.
    """
    templates = {}
    for name in map(catalogue.templates.unambiguous, catalogue.templates):
        try:
            templates[name] = load_template(name, tokenizer, catalogue)
        except PluginLoadError as error:
            console.note(f"left out: {error}")
    return most_alike(tokenizer, templates)
