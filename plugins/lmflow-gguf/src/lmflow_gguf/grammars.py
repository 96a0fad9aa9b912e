"""Grammars that answers follow: GBNF as it is given, or made of a JSON schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from lmflow_core.api import RequestError
from lmflow_gguf.options import LlamaCppOptions
from lmflow_gguf.runtime import part

# llama.cpp reads parentheses within each other by recursion, and runs out of its stack at some ten thousand.
_DEEPEST = 1000
# What is repeated is written out so many times; a schema may come from a stranger.
_MOST_REPEATED = 10_000
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")
_PARENTHESES = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|[()]')


def answer_grammar(options: LlamaCppOptions) -> str | None:
    """Return the GBNF that answers follow by some options; None where they may be any text.

    Raises:
        RequestError: a file cannot be read, or there is no grammar or JSON schema in it that llama.cpp can follow.
    """
    if options.grammar is not None:
        name, grammar = f"--grammar: {options.grammar}", _read(options.grammar, "--grammar")
    elif options.json_schema is not None:
        name, grammar = _of_schema(options.json_schema)
    else:
        return None
    if _depth(grammar) > _DEEPEST:
        raise RequestError(f"{name} has parts within each other to a depth that llama.cpp cannot follow")
    return grammar


def _of_schema(schema: str) -> tuple[str, str]:
    """Return what a schema is called in messages, and the grammar of its texts."""
    name = "--json-schema"
    if not schema.lstrip().startswith("{"):
        name, schema = f"{name}: {schema}", _read(Path(schema).expanduser(), name)
    try:
        large = max(_repeated(json.loads(schema)), default=0)
        if large > _MOST_REPEATED:
            raise ValueError(f"something is repeated up to {large} times, and {_MOST_REPEATED} is the most")
        grammar: str = part("llama_grammar").json_schema_to_gbnf(schema)
    except Exception as error:  # its reader raises whatever a schema it does not expect leads to
        raise RequestError(f"{name} is no JSON schema that llama.cpp can follow: {error}") from error
    return name, grammar


def _repeated(schema: object) -> Iterator[int]:
    """Yield how often the parts of a schema are repeated."""
    if isinstance(schema, list):
        for item in schema:
            yield from _repeated(item)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key in _COUNTS and isinstance(value, int):
                yield value
            elif key == "pattern" and isinstance(value, str):
                yield from (int(count) for count in re.findall(r"\d+(?=[\d,]*\})", value))
            else:
                yield from _repeated(value)


def _depth(grammar: str) -> int:
    """Return how many parentheses of a grammar are within each other."""
    depth = deepest = 0
    for found in _PARENTHESES.findall(grammar):
        depth += {"(": 1, ")": -1}.get(found, 0)
        deepest = max(deepest, depth)
    return deepest


def _read(file: Path, flag: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{flag}: {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{flag}: {file} is no text in UTF-8") from error
