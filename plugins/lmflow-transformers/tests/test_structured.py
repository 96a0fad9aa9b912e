"""Answers that follow a JSON schema, and tokens that are made more or less likely."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.api import BatchLimits, DecodingRequest, ModelSettings, RequestError
from lmflow_core.testing.batches import ids_of, run_batch
from lmflow_core.testing.tiny import make_tiny_model
from lmflow_transformers.models import CausalModel, CausalModelLoader
from lmflow_transformers.options import SamplingOptions
from lmflow_transformers.sampling import SamplingDecoder

_PROMPT = [10, 20, 30]
_SERVICES: Any = None
_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["cat", "dog"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "kind", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CausalModel:
    folder = make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", max_position_embeddings=2048)
    opened = CausalModelLoader().open(str(folder), ModelSettings(model="tiny", device="cpu"))
    opened.load()
    return opened


def _asked(model: CausalModel, seed: int, **options: Any) -> tuple[DecodingRequest, SamplingDecoder]:
    decoder = SamplingDecoder(SamplingOptions(temperature=1.0, **options))
    decoder.prepare(model, _SERVICES)
    ends = frozenset([model.tokenizer.inner.eos_token_id])
    return DecodingRequest(_PROMPT, 1500, ends, seed), decoder


def _check(value: Any) -> None:
    """Check a value as the schema says."""
    assert value.keys() == {"name", "age", "kind", "tags"}
    assert isinstance(value["name"], str)
    assert len(value["name"]) <= 6
    assert type(value["age"]) is int
    assert 0 <= value["age"] <= 120
    assert value["kind"] in ("cat", "dog")
    assert 1 <= len(value["tags"]) <= 3
    assert all(isinstance(tag, bool) for tag in value["tags"])


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(10_000)}},
    ],
)
def test_a_schema_that_asks_too_much_is_refused_before_an_answer(
    model: CausalModel, schema: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RequestError, match="--json-schema: it cannot be followed: "):
        SamplingDecoder(SamplingOptions(json_schema=json.dumps(schema))).prepare(model, _SERVICES)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("in_a_file", [False, True])
def test_a_random_model_writes_what_the_schema_wants(model: CausalModel, tmp_path: Path, in_a_file: bool) -> None:
    schema = json.dumps(_SCHEMA)
    if in_a_file:
        (tmp_path / "schema.json").write_text(schema, encoding="utf-8")
        schema = str(tmp_path / "schema.json")
    asked = [_asked(model, seed, json_schema=schema) for seed in range(6)] + [_asked(model, 7)]
    alone = [ids_of(decoder.decode(model, request)) for request, decoder in asked]
    for ids in alone[:6]:
        assert ids[-1] == model.tokenizer.inner.eos_token_id
        _check(json.loads(model.tokenizer.decode(ids[:-1])))
    with pytest.raises(json.JSONDecodeError):
        json.loads(model.tokenizer.decode(alone[6]))
    batch = SamplingDecoder().open_batch(model, BatchLimits())
    assert batch is not None
    assert [ids_of(steps) for steps in run_batch(batch, asked)] == alone


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ('{"type": "object"', "not valid JSON"),
        ("missing.json", "missing.json cannot be read"),
        ('{"type": "nothing"}', "--json-schema: "),
        ('{"allOf": [{"type": "string"}, {"type": "integer"}]}', "--json-schema: "),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(model: CausalModel, schema: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        SamplingDecoder(SamplingOptions(json_schema=schema)).prepare(model, _SERVICES)


def test_a_bias_forbids_tokens_and_asks_for_others(model: CausalModel) -> None:
    def greedy(*bias: str) -> list[int]:
        decoder = SamplingDecoder(SamplingOptions(logit_bias=bias))
        decoder.prepare(model, _SERVICES)
        return ids_of(decoder.decode(model, DecodingRequest(_PROMPT, 8)))

    plain = greedy()
    assert not set(greedy(*(f"{token}:-100" for token in plain))) & set(plain)
    assert greedy("77:100") == [77] * 8
    with pytest.raises(RequestError, match=r"none with the id 4000"):
        greedy("4000:1")


@pytest.mark.parametrize("text", ["x:1", "5", "5:x", "5:101", "-1:5", "5:nan"])
def test_a_bias_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--logit-bias"):
        SamplingOptions(logit_bias=(text,))
