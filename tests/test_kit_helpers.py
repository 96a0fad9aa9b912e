"""What the contracts are built of: readings of a rendering, mistakes in rows, what a process leaves, sample files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.contracts.examples import Conversation, Message, Segment, Text, Value
from lmflow_core.data.encoding import Encoder
from lmflow_core.templates.chat import ChatTemplate
from lmflow_core.testing import chats
from lmflow_core.testing.contracts import dataset
from lmflow_core.testing.engine_probe import changes, state
from lmflow_core.testing.example_samples import EXAMPLES
from lmflow_core.testing.samples import WRITERS

_ROWS = [{"text": "é", "tags": ["a"], "inner": {"n": 1}}, {"text": "b", "tags": [], "inner": {"n": 2}}]


def test_trained_text_is_found_joined_where_nothing_stands_between() -> None:
    segments = [Segment("ab"), Segment("cd", True), Segment("e", True, True), Segment("f"), Segment("g", True)]
    assert chats.trained_spans(segments) == [(2, 5), (6, 7)]
    assert chats.text_of(segments) == "abcdefg"


def test_what_a_template_refuses_has_no_text() -> None:
    plain = ChatTemplate(user="{content}\n", assistant="{content}{eos}", stop=("{eos}",)).bind("<s>", "</s>")
    assert chats.text_or_none(plain, chats.SHAPES["single"]) == "2 + 3?\n5</s>"
    assert chats.text_or_none(plain, chats.SHAPES["system"]) is None
    rendered = {name for name, _, _ in chats.rendered_shapes(plain)}
    assert "single" in rendered
    assert not {"system", "tools", "call"} & rendered


def test_mistakes_are_made_at_every_depth_and_never_in_the_row_itself() -> None:
    row = {"a": [{"b": "x"}]}
    mistaken = list(dataset._mistakes(row))
    assert row == {"a": [{"b": "x"}]}
    assert {path for path, _ in mistaken} == {("a",), ("a", 0), ("a", 0, "b")}
    written = [json.dumps(changed) for _, changed in mistaken]
    assert {"{}", '{"a": []}', '{"a": [{}]}', '{"a": null}', '{"a": [{"b": 7}]}'} <= set(written)


@pytest.mark.parametrize(
    ("example", "problem"),
    [
        (Text("x"), None),
        (Text(" "), "it is empty"),
        (Value(0.0), None),
        (Value(float("nan")), "it holds a number that is none"),
        (Conversation((Message("user", ""), Message("assistant", ""))), "it is empty"),
    ],
)
def test_an_example_without_content_is_noticed(example: Any, problem: str | None) -> None:
    assert dataset._problem(example) == problem


def test_what_a_process_leaves_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = state()
    assert changes(before, state()) == []
    monkeypatch.setenv("LMFLOW_TEST_LEFT", "1")
    monkeypatch.chdir(tmp_path)
    assert changes(before, state()) == ["the variable LMFLOW_TEST_LEFT", "the working directory"]


@pytest.mark.parametrize("suffix", WRITERS)
def test_sample_files_hold_the_rows(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"rows{suffix}"
    if suffix == ".ndjson":
        WRITERS[suffix](_ROWS, file)
        assert [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] == _ROWS
        return
    pyarrow = pytest.importorskip("pyarrow", reason="written by pyarrow")
    WRITERS[suffix](_ROWS, file)
    if suffix == ".parquet":
        from pyarrow import parquet

        assert parquet.read_table(file).to_pylist() == _ROWS
    else:
        with pyarrow.ipc.open_file(file) as reader:
            assert reader.read_all().to_pylist() == _ROWS


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_sample_example_can_be_encoded(kind: str, letters: Any) -> None:
    assert {example.kind for example in EXAMPLES[kind]} == {kind}
    template = ChatTemplate(user="{content}\n", assistant="{content}{eos}", stop=("{eos}",)).bind(None, "|")
    encoded = Encoder(letters, template).encode(EXAMPLES[kind])
    assert all(example.sequences for example in encoded)
