"""A file's chat template, rendered as transformers would: in a sandbox, as it is a program of a stranger."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lmflow_core.api import Message


def render_chat(template: str, messages: Sequence[Message], prompt: bool, bos: str, eos: str) -> str | None:
    """Return the text of a conversation, or None when the template refuses it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        compiled = environment.from_string(template)
        return compiled.render(messages=turns, add_generation_prompt=prompt, bos_token=bos, eos_token=eos)
    except Exception:  # a template may refuse a conversation with any error of its own
        return None


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=options.get("indent"))
