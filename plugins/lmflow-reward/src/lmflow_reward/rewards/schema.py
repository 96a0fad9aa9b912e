"""The reward ``json-schema``: an answer that is JSON of a given form (JSON Schema, draft 2020-12 or what it names)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jsonschema import exceptions, validators
from referencing import Registry
from referencing.exceptions import Unresolvable

from lmflow_core.api import Prompt, RequestError
from lmflow_reward.rewards.base import Verifier, row_field
from lmflow_reward.rewards.options import JsonSchemaOptions

# JSON among other text; JSON alone; JSON alone that has each property as it must be, and yet something else wrong.
_INSIDE, _WHOLE, _NEARLY = 0.25, 0.5, 0.9


class JsonSchema(Verifier):
    """1 for an answer that is, as a whole, JSON that its schema allows.

    Less is worth 0 where that is asked for; else 0.25 for JSON with other text around it, 0.5 for JSON alone, and up to
    0.4 more for the share of the properties it must have that are there and allowed.
    """

    def __init__(self, options: JsonSchemaOptions | None = None) -> None:
        """Read the schema.

        Raises:
            RequestError: its file cannot be read or holds none.
        """
        self._options = options or JsonSchemaOptions()
        self._known: dict[str, Any] = {}
        self._own = None if self._options.json_schema_file is None else self._read()

    def _read(self) -> Any:
        file = self._options.json_schema_file
        assert file is not None
        try:
            return _validator(json.loads(file.read_text(encoding="utf-8")))
        except OSError as error:
            raise RequestError(f"--json-schema-file {file} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise RequestError(f"--json-schema-file {file}: {' '.join(str(error).split())[:300]}") from error

    def check(self, prompt: Prompt) -> None:
        """Check that there is a schema for a prompt.

        Raises:
            ValueError: no file was given, and the row holds no schema.
        """
        self._schema(prompt)

    def _schema(self, prompt: Prompt) -> Any:
        if self._own is not None:
            return self._own
        instead = "--json-schema-field, or a file with --json-schema-file"
        written = row_field(prompt, self._options.json_schema_field, instead)
        key = json.dumps(written, sort_keys=True, default=str)
        if key not in self._known:
            self._known[key] = _validator(json.loads(written) if isinstance(written, str) else written)
        return self._known[key]

    def score_one(self, prompt: Prompt, answer: str) -> float:
        """Read an answer, and hold it to its schema."""
        validator = self._schema(prompt)
        try:
            value = json.loads(answer)
        except (ValueError, RecursionError):
            return _INSIDE if not self._options.json_schema_strict and _holds_json(answer) else 0.0
        if _allows(validator, value):
            return 1.0
        if self._options.json_schema_strict:
            return 0.0
        return _WHOLE + (_NEARLY - _WHOLE) * _share(validator, value)


def _validator(schema: object) -> Any:
    """Return what validates by a schema; it never fetches one that is elsewhere.

    Raises:
        ValueError: it is no schema.
    """
    if not isinstance(schema, Mapping | bool):
        raise ValueError(f"a JSON schema is an object, not a {type(schema).__name__}")
    kind = validators.validator_for(schema, default=validators.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except exceptions.SchemaError as error:
        raise ValueError(f"this is no JSON schema: {error.message}") from error
    return kind(schema, registry=Registry())


def _allows(validator: Any, value: object) -> bool:
    try:
        return bool(validator.is_valid(value))
    except Unresolvable as error:
        raise RequestError(f"the JSON schema refers to another that is not in it: {error}") from error


def _share(validator: Any, value: object) -> float:
    """Return what share of the properties that are asked for are there, each allowed by its own schema."""
    schema = validator.schema
    wanted = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(wanted, Mapping) or not wanted or not isinstance(value, Mapping):
        return 0.0
    given = ((part, value[name]) for name, part in wanted.items() if name in value)
    return sum(_allows(validator.evolve(schema=part), one) for part, one in given) / len(wanted)


def _holds_json(text: str) -> bool:
    """Whether a text holds a JSON object or list among other text."""
    decoder = json.JSONDecoder()
    for at, character in enumerate(text):
        if character in "{[":
            try:
                decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                continue
            return True
    return False
