"""What a run that goes on must have in common with its checkpoint, and how differences are told."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.contracts.recipe import Recipe
from lmflow_core.errors import RequestError
from lmflow_core.files.fingerprint import model_fingerprint

RECIPE = Recipe(
    {"the data": "abc", "--lora-r": 8, "--seed": 42, "plugin lora": "0.1.0", "--teacher": None},
    {"the data": {"--dataset": ["a.jsonl"], "--max-length": None}},
    {"--epochs": 2.0},
)


def _kept(**changes: Any) -> object:
    return json.loads(json.dumps(dataclasses.replace(RECIPE, **changes).as_dict()))


def test_the_same_recipe_has_nothing_to_tell() -> None:
    assert RECIPE.check(_kept(), "checkpoint-2") == []


DIFFERENCES: list[tuple[dict[str, Any], str]] = [
    ({"fixed": {**RECIPE.fixed, "--lora-r": 16}}, "--lora-r was 16, is 8"),
    ({"fixed": {**RECIPE.fixed, "plugin lora": "0.2.0"}}, "plugin lora was 0.2.0, is 0.1.0"),
    ({"fixed": {**RECIPE.fixed, "plugin other": "1"}}, "plugin other was 1, is absent"),
    ({"fixed": {**RECIPE.fixed, "--teacher": "big"}}, "--teacher was big, is not given"),
    ({"fixed": {**RECIPE.fixed, "the data": "xyz"}}, "the data was xyz, is abc"),
    (
        {
            "fixed": {**RECIPE.fixed, "the data": "xyz"},
            "explained": {"the data": {"--dataset": ["b.jsonl", "c.jsonl"], "--max-length": 9}},
        },
        "the data was xyz, is abc; --dataset was b.jsonl,c.jsonl, is a.jsonl; --max-length was 9, is not given",
    ),
]


@pytest.mark.parametrize(("changes", "told"), DIFFERENCES)
def test_a_difference_is_refused_by_name_or_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError) as raised:
        RECIPE.check(_kept(**changes), "checkpoint-2")
    assert str(raised.value).startswith(f"checkpoint-2 was trained otherwise: {told}. Go on with")
    assert "; ".join(RECIPE.check(_kept(**changes), "checkpoint-2", anyway=True)) == told


def test_another_path_to_the_same_data_is_no_difference() -> None:
    assert RECIPE.check(_kept(explained={"the data": {"--dataset": ["elsewhere/a.jsonl"]}}), "checkpoint-2") == []


def test_another_length_is_told_and_not_refused() -> None:
    assert RECIPE.check(_kept(length={"--epochs": 1.0}), "checkpoint-2") == ["--epochs was 1.0, is 2.0"]


@pytest.mark.parametrize("kept", [None, [], {}, {"fixed": {}, "explained": {}, "length": 3}])
def test_a_checkpoint_without_a_recipe_is_refused(kept: object) -> None:
    with pytest.raises(RequestError, match="it does not tell how it was trained"):
        RECIPE.check(kept, "checkpoint-2")


def test_a_model_is_known_by_its_weights_and_not_by_its_place_or_notes(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    weights = os.urandom(1_000_000)
    for folder in (first, second):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "README.md").write_text(folder.name)
    assert model_fingerprint(first) == model_fingerprint(second)
    (second / "model.safetensors").write_bytes(weights[:400_000] + os.urandom(200_000) + weights[600_000:])
    assert model_fingerprint(first) != model_fingerprint(second)
    (second / "model.safetensors").write_bytes(weights)
    (second / "config.json").write_text("{}")
    assert model_fingerprint(first) != model_fingerprint(second)


def test_a_model_may_be_one_small_file_or_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    before = model_fingerprint(file)
    file.write_bytes(b"GGUG")
    assert model_fingerprint(file) != before
    assert model_fingerprint(tmp_path / "missing") == model_fingerprint(tmp_path / "neither")
