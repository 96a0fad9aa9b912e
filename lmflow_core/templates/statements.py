"""Statements and expressions of Jinja, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lmflow_core.templates.patterns import split_pattern


def joined_parts(image: str = "") -> str:
    """Return statements that join the texts of a ``content`` that is a list of parts; ``image`` stands for an image."""
    shown = do("elif part['type'] == 'image'") + do(f"set ns.content = ns.content + {literal(image)}") if image else ""
    return (
        do("if content and content is not string")
        + do("set ns.content = ''")
        + do("for part in content")
        + do("if part['type'] == 'text'")
        + do("set ns.content = ns.content + part['text']")
        + shown
        + do("endif")
        + do("endfor")
        + do("set content = ns.content")
        + do("endif")
    )


def do(statement: str) -> str:
    """Return a statement."""
    return f"{{%- {statement} -%}}"


def out(expression: str) -> str:
    """Return a statement that writes an expression; nothing for an empty text."""
    return "" if expression == '""' else f"{{{{- {expression} -}}}}"


def refuse(message: str) -> str:
    """Return a statement that refuses the conversation, for an expression of the message."""
    return out(f"raise_exception({message})")


def either(condition: str, text: str, otherwise: str) -> str:
    """Return an expression for one of two texts."""
    if text == otherwise:
        return literal(text)
    return f"({literal(text)} if {condition} else {literal(otherwise)})"


def joined(pattern: str, values: Mapping[str, str]) -> str:
    """Return an expression for a pattern whose slots are expressions."""
    parts = [
        part
        for text, slot in split_pattern(pattern)
        for part in (literal(text), f"({values[slot]})" if slot else '""')
        if part != '""'
    ]
    return " + ".join(parts) or '""'


def call_number(number: str) -> str:
    """Return an expression for the nine digits of a number."""
    return f"('00000000' ~ {number})[-9:]"


def literal(text: str | None) -> str:
    """Return a text, or none, as an expression."""
    return "none" if text is None else json.dumps(text, ensure_ascii=False)
