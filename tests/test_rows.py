"""Reading rows: the forms of a file, errors by file and row, and memory that does not grow with the file."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmflow_core.contracts.source import Row
from lmflow_core.data import json_stream
from lmflow_core.data.files import data_files
from lmflow_core.data.rows import read_rows
from lmflow_core.errors import DataError


def _values(file: Path) -> list[tuple[int, dict[str, Any], str | None]]:
    return [(row.number, dict(row.value), row.declared) for row in read_rows(file)]


def _error(file: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_rows(file))
    return str(caught.value).removeprefix(str(file))


FORMS: dict[str, tuple[str, str, list[tuple[int, dict[str, Any], str | None]]]] = {
    "a list": ("a.json", '[{"a": 1}, {"b": 2}]', [(1, {"a": 1}, None), (2, {"b": 2}, None)]),
    "an empty list": ("a.json", " [ ]\n", []),
    "a list over lines": (
        "a.json",
        '[\r\n {"a":\t1}\n,\n{"b": [2, {}]}\n]\n',
        [(1, {"a": 1}, None), (2, {"b": [2, {}]}, None)],
    ),
    "an LMFlow file": (
        "a.json",
        '{"type": "text_only", "instances": [{"text": "x"}]}',
        [(1, {"text": "x"}, "text_only")],
    ),
    "a type that comes last": (
        "a.json",
        '{"instances": [{"text": "x"}, {"text": "y"}], "note": [1], "type": "text_only"}',
        [(1, {"text": "x"}, "text_only"), (2, {"text": "y"}, "text_only")],
    ),
    "an LMFlow file without a type": ("a.json", '{"instances": [{"text": "x"}]}', [(1, {"text": "x"}, None)]),
    "an LMFlow file with more fields": (
        "a.json",
        '{"version": {"n": [1]}, "type": "text2text", "instances": [], "more": null}',
        [],
    ),
    "lines": ("a.jsonl", '{"a": 1}\n{"b": 2}', [(1, {"a": 1}, None), (2, {"b": 2}, None)]),
    "lines, blank ones not counted": (
        "a.jsonl",
        '\n{"a": 1}\r\n   \n\n{"b": 2}\n\n',
        [(1, {"a": 1}, None), (2, {"b": 2}, None)],
    ),
    "a line separator inside a text": ("a.jsonl", '{"a": "x\u2028y\x85z"}\n', [(1, {"a": "x\u2028y\x85z"}, None)]),
    "a name in capitals": ("A.JSONL", '{"a": 1}\n', [(1, {"a": 1}, None)]),
    "nothing in a list file": ("a.json", " \n", []),
    "nothing in a file of lines": ("a.jsonl", "", []),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "with a byte order mark"])
def test_forms(tmp_path: Path, name: str, mark: str) -> None:
    filename, text, expected = FORMS[name]
    file = tmp_path / filename
    file.write_bytes((mark + text).encode())
    assert _values(file) == expected


ERRORS: dict[str, tuple[str, bytes, str]] = {
    "broken in the middle of a list": (
        "a.json",
        b'[{"a": 1}, {"a": oops}, {"a": 3}]',
        ", row 2: broken JSON: Expecting value",
    ),
    "broken in the middle of lines": (
        "a.jsonl",
        b'{"a": 1}\n\n{"a": oops}\n{"a": 3}\n',
        ", row 2: broken JSON: Expecting value",
    ),
    "two values in a line": ("a.jsonl", b'{"a": 1} {"a": 2}\n', ", row 1: broken JSON: Extra data"),
    "no comma between rows": (
        "a.json",
        b'[{"a": 1} {"a": 2}]',
        ", row 1: broken JSON: expected ']', found '{'",
    ),
    "a comma after the last row": ("a.json", b'[{"a": 1},]', ", row 2: broken JSON: Expecting value"),
    "a line break inside a text": (
        "a.json",
        b'[{"a": "x\ny"}]',
        ", row 1: broken JSON: Invalid control character",
    ),
    "cut between rows": ("a.json", b'[{"a": 1}, {"a": 2}', ", row 2: broken JSON: it ends too early"),
    "cut in a text": ("a.json", b'[{"a": 1}, {"a": "xy', ", row 2: broken JSON: Unterminated string"),
    "cut in a line": ("a.jsonl", b'{"a": 1}\n{"a": ', ", row 2: broken JSON: Expecting value"),
    "cut behind the rows": (
        "a.json",
        b'{"type": "text_only", "instances": [{"text": "x"}]',
        ": broken JSON: it ends too early",
    ),
    "a key that is no text": ("a.json", b'{1: 2, "instances": []}', ": broken JSON: expected a key in double quotes"),
    "a key without a value": ("a.json", b'{"type", "instances": []}', ": broken JSON: expected ':', found ','"),
    "text behind the list": (
        "a.json",
        b'[{"a": 1}]\n[{"a": 2}]',
        ": text follows the end of the JSON; one value per file, or name it .jsonl",
    ),
    "lines in a list file": (
        "a.json",
        b'{"a": 1}\n{"a": 2}',
        ": the object has no list 'instances'; a file holds a list of rows or an LMFlow object",
    ),
    "instances that are no list": (
        "a.json",
        b'{"type": "text_only", "instances": {"text": "x"}}',
        ": the object has no list 'instances'; a file holds a list of rows or an LMFlow object",
    ),
    "no list at all": (
        "a.json",
        b'"text"',
        ": expected a JSON list of rows, or an object with 'type' and 'instances'",
    ),
    "a number as a row": ("a.json", b'[{"a": 1}, 7.5]', ", row 2: a row must be a JSON object, not a number"),
    "a text as a row": ("a.json", b'["x"]', ", row 1: a row must be a JSON object, not a string"),
    "a list as a row": ("a.jsonl", b'[{"a": 1}]\n', ", row 1: a row must be a JSON object, not a list"),
    "a truth value as a row": ("a.jsonl", b"true", ", row 1: a row must be a JSON object, not a truth value"),
    "null as a row": (
        "a.json",
        b'{"instances": [null]}',
        ", row 1: a row must be a JSON object, not null",
    ),
    "nested too deeply": (
        "a.json",
        b'[{"a": 1}, {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]",
        ", row 2: broken JSON: nested too deeply",
    ),
    "a line nested too deeply": (
        "a.jsonl",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        ", row 1: broken JSON: nested too deeply",
    ),
    "Latin-1": (
        "a.jsonl",
        b'{"a": 1}\n{"a": "\xe9t\xe9"}\n',
        ": not UTF-8 (invalid continuation byte at byte 16, line 2); convert it to UTF-8",
    ),
    "UTF-16": (
        "a.json",
        '[{"a": 1}]'.encode("utf-16"),
        ": not UTF-8 (invalid start byte at byte 0, line 1); convert it to UTF-8",
    ),
    "cut inside a character": (
        "a.json",
        '[{"a": "é'.encode()[:-1],
        ": not UTF-8 (unexpected end of data at byte 8, line 1); convert it to UTF-8",
    ),
    "Latin-1, far behind the first buffer": (
        "a.jsonl",
        b'{"a": "' + b"x" * 3_000_000 + b'"}\n{"a": "\xe9"}\n',
        ": not UTF-8 (invalid continuation byte at byte 3000017, line 2); convert it to UTF-8",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(tmp_path: Path, name: str) -> None:
    filename, content, message = ERRORS[name]
    file = tmp_path / filename
    file.write_bytes(content)
    assert _error(file) == message


def test_rows_before_an_error_are_given(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('[{"a": 1}, {"a": 2}, oops]')
    reading = read_rows(file)
    assert [next(reading), next(reading)] == [Row(file, 1, {"a": 1}), Row(file, 2, {"a": 2})]
    with pytest.raises(DataError, match="row 3: broken JSON"):
        next(reading)


def test_reading_goes_on_where_it_can(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"a": 1}\n{oops\n7\n{"a": 4}\n')
    errors: list[DataError] = []
    assert [row.number for row in read_rows(lines, errors.append)] == [1, 4]
    assert [(error.row, error.problem) for error in errors] == [
        (2, "broken JSON: Expecting property name enclosed in double quotes"),
        (3, "a row must be a JSON object, not a number"),
    ]


def test_a_folder_gives_its_files_in_order_of_name(tmp_path: Path) -> None:
    for name in (
        "b.json",
        "a.jsonl",
        "deep/c.json",
        ".hidden.json",
        ".cache/d.json",
        "deep/.git/x/e.json",
        "notes.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("[]")
    assert [file.relative_to(tmp_path).as_posix() for file in data_files([tmp_path])] == [
        "a.jsonl",
        "b.json",
        "deep/c.json",
    ]
    assert data_files([tmp_path / "b.json", tmp_path / "deep"]) == [tmp_path / "b.json", tmp_path / "deep" / "c.json"]
    assert data_files([tmp_path / ".hidden.json"]) == [tmp_path / ".hidden.json"]


def test_a_folder_may_have_a_dot_in_its_own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".data" / "below").mkdir(parents=True)
    (tmp_path / ".data" / "a.json").write_text("[]")
    assert data_files([tmp_path / ".data"]) == [tmp_path / ".data" / "a.json"]
    monkeypatch.chdir(tmp_path / ".data" / "below")
    assert data_files([Path("..")]) == [Path("../a.json")]


def test_paths_that_are_no_data(tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(DataError) as caught:
            data_files([path])
        return str(caught.value)

    table = tmp_path / "rows.xlsx"
    table.write_text("a,b\n")
    known = ".json, .jsonl, .csv, .tsv, .txt"
    assert refusal(tmp_path) == f"{tmp_path}: the folder holds no data file ({known})"
    assert refusal(tmp_path / "none.json") == f"{tmp_path / 'none.json'}: no such file or folder"
    assert refusal(table) == (f"{table}: not a data file; its name must end in {known}, perhaps with .gz, .bz2, .xz")


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    assert _error(tmp_path / "a.json") == ": cannot be read: Is a directory"


_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40)
_nested = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
_rows = st.lists(st.dictionaries(st.text(max_size=5), _nested, max_size=4), max_size=5)
_writings = st.fixed_dictionaries({"indent": st.none() | st.integers(0, 3), "ensure_ascii": st.booleans()})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows") / "data.json"


def _read_in_chunks(file: Path, text: str, chunk: int) -> list[dict[str, Any]]:
    file.write_text(text, encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        return [dict(row.value) for row in read_rows(file)]


@settings(max_examples=300, deadline=None)
@given(
    values=_rows,
    writing=_writings,
    field=st.none() | st.lists(_scalars, min_size=1, max_size=1),
    chunk=st.integers(1, 60),
)
def test_the_stream_equals_json_load(
    file: Path, values: list[dict[str, Any]], writing: dict[str, Any], field: list[Any] | None, chunk: int
) -> None:
    text = json.dumps({"version": field[0], "instances": values, "type": "t"} if field else values, **writing)
    assert _read_in_chunks(file, text, chunk) == values


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse what ``json`` takes: an object that gives a key twice."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError(pairs)
    return dict(pairs)


@settings(max_examples=300, deadline=None)
@given(values=_rows, writing=_writings, chunk=st.integers(1, 60), data=st.data())
def test_a_damaged_text_is_refused_when_json_refuses_it(
    file: Path, values: list[dict[str, Any]], writing: dict[str, Any], chunk: int, data: st.DataObject
) -> None:
    text = json.dumps(values, **writing)
    at = data.draw(st.integers(1, len(text) - 1))
    damaged = text[:at] + data.draw(st.sampled_from(["", '"', "{", "]", ",", ":", "\\", "tru", "\n", "9"]))
    damaged += text[at + data.draw(st.integers(0, 2)) :] if data.draw(st.booleans()) else ""
    try:
        expected = json.loads(damaged, object_pairs_hook=_each_key_once)
    except ValueError:
        with pytest.raises(DataError):
            _read_in_chunks(file, damaged, chunk)
    else:
        if all(isinstance(value, dict) for value in expected):
            assert _read_in_chunks(file, damaged, chunk) == expected


def _megabytes(count: int) -> Iterator[str]:
    row = json.dumps({"instruction": "x" * 400, "output": "é" * 300}, ensure_ascii=False)
    for _ in range(count * 1_000_000 // len(row.encode())):
        yield row


def _peak(file: Path) -> tuple[int, str]:
    """Read all rows; return the most memory held meanwhile, in bytes, and the error or the number of rows."""
    tracemalloc.start()
    try:
        outcome = str(sum(1 for _ in read_rows(file)))
    except DataError as error:
        outcome = error.problem
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak, outcome


@pytest.mark.parametrize("form", ["list", "type last", "lines"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, form: str) -> None:
    file = tmp_path / ("data.jsonl" if form == "lines" else "data.json")
    opening, between, end = {
        "list": ("[", ",\n", "]"),
        "type last": ('{"instances": [', ",", '], "type": "alpaca"}'),
        "lines": ("", "\n", "\n"),
    }[form]
    count = 0
    with file.open("w", encoding="utf-8") as stream:
        for count, row in enumerate(_megabytes(60), start=1):
            stream.write((opening if count == 1 else between) + row)
        stream.write(end)
    assert file.stat().st_size > 59_000_000
    peak, outcome = _peak(file)
    assert outcome == str(count)
    assert peak < 10_000_000


def test_an_early_error_is_found_without_reading_on(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    with file.open("w", encoding="utf-8") as stream:
        stream.write('[{"a": 1}, {"a": oops}')
        for row in _megabytes(30):
            stream.write("," + row)
        stream.write("]")
    peak, outcome = _peak(file)
    assert outcome == "broken JSON: Expecting value"
    assert peak < 10_000_000
