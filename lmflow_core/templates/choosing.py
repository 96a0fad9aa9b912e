"""Which template a model talks in: the one asked for, its own, or the one that renders as its own does."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.contracts.examples import Example, has_conversation
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.template import Template, TemplateSpec
from lmflow_core.contracts.tokens import Tokenizer
from lmflow_core.errors import PluginLoadError, RequestError
from lmflow_core.models.opening import OpenModel
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.templates.files import is_template_file, load_template_file
from lmflow_core.templates.matching import most_alike
from lmflow_core.templates.own import JinjaTemplate

OWN_TEMPLATE = "tokenizer"


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
    placeholder = placeholder_of(opened.model)
    name = asked or opened.template_name
    if name is None:
        try:
            name = _model_decides(tokenizer, catalogue, placeholder)
            template = load_template(name, tokenizer, catalogue, placeholder)
        except RequestError:
            if needed:
                raise
            return None, None
    else:
        template = load_template(name, tokenizer, catalogue, placeholder)
    if name != OWN_TEMPLATE and not is_template_file(name):
        name = catalogue.of(TemplateSpec).unambiguous(catalogue.of(TemplateSpec).find(name))
    return name, template


def placeholder_of(model: LanguageModel) -> str | None:
    """Return what stands for an image in the text of a model's chat template; None for a model that takes none."""
    return None if model.media is None else model.media.placeholder


def jinja_for(template: Template, model: LanguageModel) -> str:
    """Return a template in Jinja as it is saved with a model, with a place for images where the model takes them."""
    placeholder = placeholder_of(model)
    return template.to_jinja() if placeholder is None else template.to_jinja(placeholder)


def _model_decides(tokenizer: Tokenizer, catalogue: Catalogue, placeholder: str | None) -> str:
    known = ", ".join(catalogue.of(TemplateSpec).names())
    if tokenizer.chat_template is None:
        raise RequestError(f"the model has no chat template: choose one with --template NAME. Known: {known}")
    fitting = matching_templates(tokenizer, catalogue, placeholder)
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


def load_template(name: str, tokenizer: Tokenizer, catalogue: Catalogue, placeholder: str | None = None) -> Template:
    """Return a template bound to a tokenizer: by its name, from a file, or the tokenizer's own.

    ``placeholder`` is what stands for an image in the text of a Jinja template, for a model that takes images.

    Raises:
        UnknownNameError: the name is unknown.
        RequestError: the file or the tokenizer holds no template that can be used.
    """
    if name == OWN_TEMPLATE:
        return _own_template(tokenizer, placeholder)
    if is_template_file(name):
        template = load_template_file(name, tokenizer, placeholder)
    else:
        template = catalogue.of(TemplateSpec).load(name)
    return template.bind(tokenizer.bos_token, tokenizer.eos)


def _own_template(tokenizer: Tokenizer, placeholder: str | None) -> Template:
    if tokenizer.chat_template is None:
        raise RequestError("the model has no chat template of its own: choose one with --template NAME")
    try:
        return JinjaTemplate(tokenizer, tokenizer.chat_template, placeholder)
    except ValueError as error:
        raise RequestError(f"the model's own template cannot be used: {error}") from error


def matching_templates(tokenizer: Tokenizer, catalogue: Catalogue, placeholder: str | None = None) -> list[str]:
    """Return the templates that render some probing conversations as the model's own template does.

    With a ``placeholder``, what stands for an image, one of them has an image.
    A template that cannot be loaded is left out, with a note.
    """
    templates = {}
    for name in map(catalogue.of(TemplateSpec).unambiguous, catalogue.of(TemplateSpec)):
        try:
            templates[name] = load_template(name, tokenizer, catalogue)
        except PluginLoadError as error:
            console.note(f"left out: {error}")
    return most_alike(tokenizer, templates, placeholder)
