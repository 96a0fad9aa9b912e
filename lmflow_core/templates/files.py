"""A user's own template from a YAML file that holds a description, or a Jinja file that holds a chat template."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmflow_core.contracts.template import Template
from lmflow_core.contracts.tokens import Tokenizer
from lmflow_core.errors import OptionError, RequestError, suggestion
from lmflow_core.templates.chat import ChatTemplate
from lmflow_core.templates.description import Reasoning, Tools
from lmflow_core.templates.own import JinjaTemplate

_YAML = (".yaml", ".yml")
_JINJA = (".jinja", ".jinja2", ".j2")
_NESTED = {"tools": Tools, "reasoning": Reasoning}
_TEXT, _TEXTS, _FLAG, _NUMBER = "a text", "a list of texts", "true or false", "a number"


def is_template_file(name: str) -> bool:
    """Whether what a user gave for a template is a file, by its suffix."""
    return name.endswith((*_YAML, *_JINJA))


def load_template_file(name: str, tokenizer: Tokenizer | None, placeholder: str | None = None) -> Template:
    """Read a template; a Jinja file needs the tokenizer it is used with, and what it writes for an image, if any.

    Raises:
        RequestError: the file cannot be read, or does not hold a template.
    """
    path = Path(name).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"the template {path} cannot be read: {error}") from error
    if path.suffix in _YAML:
        return described(text, str(path))
    if tokenizer is None:
        raise RequestError(
            f"what a Jinja template trains on shows only with a model: lmflow data preview --template {path} --model …"
        )
    try:
        return JinjaTemplate(tokenizer, text, placeholder)
    except ValueError as error:
        raise RequestError(f"{path}: {error}") from error


def described(text: str, where: str) -> ChatTemplate:
    """Return the template of a YAML text, whose keys are the fields of :class:`ChatTemplate`.

    Raises:
        OptionError: the text is no mapping, or a key is unknown, missing or of the wrong type.
    """
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise OptionError(f"{where} is not YAML: {error}") from error
    built: ChatTemplate = _built(ChatTemplate, content, where)
    return built


def _built(target: Any, content: Any, where: str) -> Any:
    if not isinstance(content, Mapping):
        raise OptionError(f"{where}: a template is a mapping of its texts, not {content!r}")
    fields = {field.name: field for field in dataclasses.fields(target)}
    for key in content:
        if key not in fields:
            raise OptionError(f"{where}: unknown key {key!r}.{suggestion(str(key), fields)} Known: {', '.join(fields)}")
    missing = [name for name, field in fields.items() if _needed(field) and name not in content]
    if missing:
        raise OptionError(f"{where}: {', '.join(missing)} must be given")
    values = {key: _value(str(fields[key].type), key, value, where) for key, value in content.items()}
    try:
        return target(**values)
    except ValueError as error:
        raise OptionError(f"{where}: {error}") from error


def _needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING


def _value(kind: str, key: str, value: Any, where: str) -> Any:
    if value is None and "None" in kind:
        return None
    if key in _NESTED:
        return _built(_NESTED[key], value, f"{where}: {key}")
    if kind.startswith("tuple"):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise OptionError(f"{where}: {key} must be {_TEXTS}, not {value!r}")
    wanted, words = (bool, _FLAG) if kind == "bool" else (int, _NUMBER) if kind.startswith("int") else (str, _TEXT)
    if not isinstance(value, wanted):
        raise OptionError(f"{where}: {key} must be {words}, not {value!r}")
    return value
