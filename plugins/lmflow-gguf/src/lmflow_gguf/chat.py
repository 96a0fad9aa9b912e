"""A file's chat template, rendered as transformers would: in a sandbox, as it is a program of a stranger."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lmflow_core.api import Message, as_turns

# A template that asks for the date is given this one: a text is the same on every day.
_DAY = datetime.datetime(2024, 7, 26)


def render_chat(template: str, messages: Sequence[Message], **values: Any) -> str | None:
    """Return the text of a conversation, or None when the template refuses it.

    ``values`` are what the template is given besides: ``add_generation_prompt``, ``bos_token``, ``tools``, …
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _DAY.strftime
    try:
        return environment.from_string(template).render(messages=as_turns(messages), **values)
    except Exception:  # a template may refuse a conversation with any error of its own
        return None


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=options.get("indent"))
