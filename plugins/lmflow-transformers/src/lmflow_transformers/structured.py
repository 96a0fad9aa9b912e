"""Answers that follow a JSON schema: llguidance tells which tokens may come next."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor

from lmflow_core.api import DecodingRequest, RequestError
from lmflow_transformers.models import CausalModel
from lmflow_transformers.options import SamplingOptions

# A schema may come from a stranger: without these, some take half a minute and hundreds of megabytes.
_LIMITS = {"max_grammar_size": 50_000, "max_lexer_states": 20_000, "verbose_errors": False}
# Between tokens of JSON may be a line break and an indentation, and no more: small models would go on for ever.
_FORM = {"whitespace_pattern": r"\n?[ ]{0,20}"}
_vocabularies: weakref.WeakKeyDictionary[Any, dict[frozenset[int], Any]] = weakref.WeakKeyDictionary()


def answer_schema(model: CausalModel, options: SamplingOptions, request: DecodingRequest) -> SchemaProcessor | None:
    """Return what lets an answer follow the schema of some options; None where they have none.

    Raises:
        RequestError: the schema cannot be read or is none that can be followed, or nothing can end the answer.
    """
    return None if options.json_schema is None else SchemaProcessor(model, options.json_schema, request)


class SchemaProcessor(LogitsProcessor):
    """Leaves only those tokens that go on with JSON of a schema, or end it.

    Args:
        model: its tokenizer tells what tokens mean.
        schema: the schema, or the name of a file with it.
        request: whose answer follows it.

    Raises:
        RequestError: the schema cannot be read or is none that can be followed, or nothing can end the answer.
    """

    def __init__(self, model: CausalModel, schema: str, request: DecodingRequest) -> None:
        from llguidance import LLMatcher, LLParserLimits

        if not request.stop_ids:
            raise RequestError("--json-schema needs a token that ends an answer, and this model has none")
        try:
            grammar = LLMatcher.grammar_from_json_schema(_schema_text(schema), defaults=_FORM)
        except ValueError as error:
            raise RequestError(f"--json-schema: {error}") from error
        limits = LLParserLimits(**_LIMITS)
        self._matcher = LLMatcher(_vocabulary(model, request.stop_ids), grammar, log_level=0, limits=limits)
        self._prompt = len(request.prompt)
        self._consumed: list[int] = []
        self._matcher.compute_bitmask()  # some schemas show only here that they cannot be followed
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise RequestError(f"--json-schema: it cannot be followed: {self._matcher.get_error().splitlines()[0]}")

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores (1, vocabulary) behind some ids (1, length), minus infinity for what may not follow."""
        self._follow(input_ids[0, self._prompt :].tolist())
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = torch.from_numpy(np.unpackbits(bits, bitorder="little")[: scores.shape[-1]].astype(bool))
        allowed = torch.nn.functional.pad(allowed, (0, scores.shape[-1] - len(allowed)))
        return scores.masked_fill(~allowed.to(scores.device), float("-inf"))

    def _follow(self, answer: list[int]) -> None:
        """Take the matcher to the end of the answer, back first where a draft was wrong."""
        kept = next(
            (at for at, (one, other) in enumerate(zip(self._consumed, answer, strict=False)) if one != other),
            min(len(self._consumed), len(answer)),
        )
        if kept < len(self._consumed):
            self._matcher.rollback(len(self._consumed) - kept)
        self._matcher.consume_tokens(answer[kept:])
        self._check()
        self._consumed = answer


def _schema_text(schema: str) -> str:
    text = schema
    if not schema.lstrip().startswith("{"):
        try:
            text = Path(schema).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"--json-schema: {schema} cannot be read: {error}") from error
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"--json-schema: not valid JSON: {error}") from error
    return text


def _vocabulary(model: CausalModel, ends: frozenset[int]) -> Any:
    """Return a model's vocabulary as llguidance reads it, made once for each set of ends."""
    import llguidance.hf

    tokenizer = model.tokenizer.inner
    made = _vocabularies.setdefault(tokenizer, {})
    if ends not in made:
        try:
            made[ends] = llguidance.hf.from_tokenizer(tokenizer, eos_token=sorted(ends))
        except (TypeError, ValueError) as error:
            raise RequestError(
                f"--json-schema: the tokenizer of {model.reference} cannot be followed: {error}"
            ) from error
    return made[ends]
