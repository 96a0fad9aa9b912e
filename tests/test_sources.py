"""Tables, text and compressed files; which sources some paths name; and what is sampled from them."""

from __future__ import annotations

import bz2
import functools
import gzip
import json
import lzma
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmflow_core.contracts.examples import Text
from lmflow_core.contracts.settings import DataSettings
from lmflow_core.contracts.source import SourceSpec
from lmflow_core.data.examples import ExampleReader
from lmflow_core.data.files import is_hub_name
from lmflow_core.data.rows import read_rows
from lmflow_core.data.selection import first_examples, selected
from lmflow_core.data.sources import sources
from lmflow_core.errors import DataError
from lmflow_core.plugins.discovery import load_plugins
from lmflow_core.plugins.policy import PluginPolicy
from lmflow_core.plugins.record import PluginRecord, PluginSet
from lmflow_core.plugins.registry import Catalogue

KINDS = ("text", "prompted", "conversation")


@pytest.fixture
def catalogue() -> Catalogue:
    return _only_datasets()


def _values(file: Path) -> list[dict[str, Any]]:
    return [dict(row.value) for row in read_rows(file)]


def _refusal(file: Path) -> str:
    with pytest.raises(DataError) as caught:
        _values(file)
    return str(caught.value)


def test_a_table_names_its_columns_first(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text('input,output\n"a, b","c ""d""\ne"\n\nf,g\n', encoding="utf-8-sig")
    assert _values(file) == [{"input": "a, b", "output": 'c "d"\ne'}, {"input": "f", "output": "g"}]
    tabbed = tmp_path / "rows.tsv"
    tabbed.write_text("text\tid\nGrüße, 世界\t1\n", encoding="utf-8")
    assert _values(tabbed) == [{"text": "Grüße, 世界", "id": "1"}]


TABLES = {
    "a row too long": ("a,b\n1,2\n1,2,3\n", ", row 2: 3 cells where the first line names 2"),
    "a row too short": ("a,b\n1\n", ", row 1: 1 cells where the first line names 2"),
    "a name twice": ("a,a\n1,2\n", ": the first line must name each column once"),
    "a name missing": ("a,\n1,2\n", ": the first line must name each column once"),
    "a quote that never ends": ('a,b\n"1,2\n', ", row 1: broken CSV: unexpected end of data"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_broken_table_is_told_by_row(name: str, tmp_path: Path) -> None:
    content, message = TABLES[name]
    file = tmp_path / "rows.csv"
    file.write_text(content, encoding="utf-8")
    assert _refusal(file) == f"{file}{message}"


def test_text_has_a_row_per_paragraph(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    file.write_text("\n one\ntwo\n\n \nthree\n", encoding="utf-8")
    assert _values(file) == [{"text": " one\ntwo"}, {"text": "three"}]


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_compressed_files_are_read_as_they_are(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"rows.jsonl{suffix}"
    whole = COMPRESSIONS[suffix]("\n".join(json.dumps({"text": f"é {n}"}) for n in range(300)).encode())
    file.write_bytes(whole)
    assert _values(file) == [{"text": f"é {n}"} for n in range(300)]
    file.write_bytes(whole[: len(whole) // 2])
    assert "the compressed file is broken" in _refusal(file)
    file.write_bytes(b"not compressed at all")
    assert _refusal(file).startswith(f"{file}: ")


def test_another_encoding_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes("text\nGrüße\n".encode("latin-1"))
    assert _refusal(file) == f"{file}: not UTF-8 (invalid start byte at byte 7, line 2); convert it to UTF-8"


def test_a_hub_name_is_told_from_a_path_that_is_not_there(tmp_path: Path) -> None:
    assert is_hub_name(Path("tatsu-lab/alpaca"))
    assert is_hub_name(Path("tatsu-lab/alpaca:test"))
    assert not is_hub_name(Path("data/rows.jsonl"))
    assert not is_hub_name(Path("./alpaca/x"[:8]))
    assert not is_hub_name(tmp_path)


def _texts(data: DataSettings, catalogue: Catalogue, **options: Any) -> list[str]:
    found = [located.example for located in selected(data, catalogue, options.pop("seed", 1), KINDS, **options)]
    return [example.text for example in found if isinstance(example, Text)]


@pytest.fixture
def two_sources(tmp_path: Path) -> tuple[Path, Path]:
    files = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for file in files:
        file.write_text("\n".join(json.dumps({"text": f"{file.stem}{n}"}) for n in range(1000)), encoding="utf-8")
    return files


def test_weights_say_how_often_a_source_counts(two_sources: tuple[Path, Path], catalogue: Catalogue) -> None:
    found = _texts(DataSettings(dataset=two_sources, dataset_weights=(2.5, 0.25)), catalogue)
    first = [found.count(f"a{n}") for n in range(1000)]
    assert set(first) == {2, 3}
    assert 2400 < sum(first) < 2600
    second = [found.count(f"b{n}") for n in range(1000)]
    assert set(second) == {0, 1}
    assert 200 < sum(second) < 300
    assert found == _texts(DataSettings(dataset=two_sources, dataset_weights=(2.5, 0.25)), catalogue)
    assert found != _texts(DataSettings(dataset=two_sources, dataset_weights=(2.5, 0.25)), catalogue, seed=2)


def test_what_is_validation_is_never_trained_on(two_sources: tuple[Path, Path], catalogue: Catalogue) -> None:
    data = DataSettings(dataset=two_sources, dataset_weights=(3, 1), eval_share=0.2)
    trained, validation = _texts(data, catalogue), _texts(data, catalogue, validation=True)
    assert not set(trained) & set(validation)
    assert len(set(trained)) + len(validation) == 2000
    assert len(validation) == len(set(validation))
    assert 350 < len(validation) < 450


def test_the_limit_counts_rows_that_are_trained_on(two_sources: tuple[Path, Path], catalogue: Catalogue) -> None:
    assert _texts(DataSettings(dataset=two_sources, max_train_samples=3), catalogue) == ["a0", "a1", "a2"]
    assert [example.kind for example in first_examples(DataSettings(dataset=two_sources), catalogue)] == ["text"] * 2


def test_weights_must_be_as_many_as_sources(two_sources: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="--dataset-weights has 1 numbers for 2 entries of --dataset"):
        DataSettings(dataset=two_sources, dataset_weights=(1.0,))


def test_an_example_of_a_kind_nobody_learns_from_is_refused(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}), encoding="utf-8")
    with pytest.raises(DataError, match="row 1: a preference example, but the objective learns from text, prompted"):
        _texts(DataSettings(dataset=(file,)), catalogue)


_FIELDS = (
    ("text", "input", "output", "instruction", "history", "system", "messages", "conversations", "role", "content"),
    ("from", "value", "tools", "tool_calls", "name", "arguments", "function", "chosen", "rejected", "prompt"),
    ("completion", "label", "images", "score", "weight", "train", "margin"),
)
_keys = st.sampled_from([name for names in _FIELDS for name in names])
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.dictionaries(_keys, _json, max_size=5), min_size=1, max_size=3))
def test_any_rows_give_examples_or_clear_errors(rows: list[dict[str, Any]]) -> None:
    _examples_or_errors("\n".join(map(json.dumps, rows)).encode(), ".jsonl")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_files_give_examples_or_clear_errors(data: st.DataObject) -> None:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "é", "tool_calls": [{"name": "f", "arguments": "{}"}]},
    ]
    rows = [{"messages": turns}, {"instruction": "a", "output": "b", "history": [["c", "d"]]}]
    form = data.draw(st.sampled_from([".jsonl", ".json", ".csv", ".jsonl.gz", ".txt"]))
    content = json.dumps(rows).encode() if form == ".json" else "\n".join(map(json.dumps, rows)).encode()
    content = gzip.compress(content) if form.endswith(".gz") else content
    mutated = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(mutated) - 1, 0)))
        mutated[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    _examples_or_errors(bytes(mutated), form)


def test_two_plugins_that_read_one_kind_of_file_are_told(tmp_path: Path) -> None:
    specs = [SourceSpec(name="table", target="a:b", summary="x", suffixes=(".tab",)) for _ in range(2)]
    records = [PluginRecord(name, f"lmflow-{name}", "1", specs=(spec,)) for name, spec in zip("xy", specs, strict=True)]
    (tmp_path / "a.tab").write_text("a\n")
    with pytest.raises(DataError) as raised:
        sources([tmp_path / "a.tab"], Catalogue(PluginSet(tuple(records))))
    assert raised.value.problem == "can be read by x:table and y:table; leave one out with --no-plugin y"


@functools.cache
def _only_datasets() -> Catalogue:
    return Catalogue(load_plugins(PluginPolicy(only=frozenset({"datasets"}))))


def _examples_or_errors(content: bytes, form: str) -> None:
    """Read a file to its end; whatever is wrong with it is told, with the file, and nothing else is raised."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"rows{form}"
        file.write_bytes(content)
        errors: list[DataError] = []
        examples = list(ExampleReader(_only_datasets(), on_error=errors.append).read([file]))
    assert examples or errors
    for located in examples:
        assert located.file == file
        assert located.row >= 1
    for error in errors:
        assert error.file == file
        assert error.problem
