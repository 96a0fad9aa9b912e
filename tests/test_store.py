"""Encoded examples in memory and in files: what is stored comes back, and what is not whole is noticed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmflow_core.contracts.examples import ROLES, ImagePart, Message, Prompt, ToolCall
from lmflow_core.contracts.tokens import IGNORE, EncodedExample, EncodedSequence, Media
from lmflow_core.data import row_files
from lmflow_core.data.row_files import RowWriter, read_meta
from lmflow_core.data.store import EncodedRows


def _rows(*rows: EncodedSequence) -> EncodedRows:
    kept = EncodedRows()
    for row in rows:
        kept.append(EncodedExample((row,)))
    return kept


def test_rows_are_fetched_by_position() -> None:
    rows = _rows(EncodedSequence([1, 2], [IGNORE, 2]), EncodedSequence([], []), EncodedSequence([2**31 - 1], [0]))
    fetched = [(list(row.input_ids), list(row.labels)) for row in rows.sequences()]
    assert fetched == [([1, 2], [IGNORE, 2]), ([], []), ([2**31 - 1], [0])]
    picked = [rows[at].sequences[0] for at in (2, 0, 1)]
    assert [(list(row.input_ids), list(row.labels)) for row in picked] == [fetched[at] for at in (2, 0, 1)]
    assert (len(rows), rows.tokens) == (3, 3)
    assert (len(EncodedRows()), EncodedRows().tokens, list(EncodedRows())) == (0, 0, [])


@pytest.mark.parametrize("position", [3, -1, 1000])
def test_there_is_no_row_outside(position: int) -> None:
    with pytest.raises(IndexError, match=f"^{position}$"):
        _ = _rows(EncodedSequence([1], [1]), EncodedSequence([2], [2]), EncodedSequence([3], [3]))[position]


def test_the_fingerprint_covers_every_id_label_and_boundary() -> None:
    first, second = EncodedSequence([1, 2], [IGNORE, 2]), EncodedSequence([3, 4], [3, 4])
    prints = {
        "as it is": _rows(first, second),
        "another id": _rows(EncodedSequence([1, 5], [IGNORE, 2]), second),
        "another label": _rows(EncodedSequence([1, 2], [1, 2]), second),
        "another boundary": _rows(EncodedSequence([1, 2, 3], [IGNORE, 2, 3]), EncodedSequence([4], [4])),
        "no boundary": _rows(EncodedSequence([1, 2, 3, 4], [IGNORE, 2, 3, 4])),
        "another order": _rows(second, first),
        "one row less": _rows(first),
        "an empty row more": _rows(first, second, EncodedSequence([], [])),
        "nothing": _rows(),
    }
    assert len({rows.fingerprint() for rows in prints.values()}) == len(prints)


def _written(folder: Path, rows: Sequence[EncodedSequence], **facts: int) -> EncodedRows | None:
    folder.mkdir()
    writer = RowWriter(folder)
    for row in rows:
        writer.append(EncodedExample((row,)))
    writer.close(facts)
    return EncodedRows.mapped(folder)


@pytest.mark.parametrize("flushed_at", [1, 3, 1 << 20])
def test_rows_from_files_are_those_that_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushed_at: int
) -> None:
    monkeypatch.setattr(row_files, "_FLUSHED_AT", flushed_at)
    rows = [
        EncodedSequence([1, 2], [IGNORE, 2]),
        EncodedSequence([], []),
        EncodedSequence([2**31 - 1], [0]),
        EncodedSequence([5], [5]),
    ]
    mapped = _written(tmp_path / "rows", rows, answer=42)
    assert mapped is not None
    assert [(list(row.input_ids), list(row.labels)) for row in mapped.sequences()] == [
        (r.input_ids, r.labels) for r in rows
    ]
    assert (len(mapped), mapped.tokens, mapped.lengths()) == (4, 4, [2, 0, 1, 1])
    assert mapped.fingerprint() == _rows(*rows).fingerprint()
    assert read_meta(tmp_path / "rows")["facts"] == {"answer": 42}  # type: ignore[index]


def test_no_rows_at_all_can_be_written(tmp_path: Path) -> None:
    mapped = _written(tmp_path / "rows", [])
    assert mapped is not None
    assert (len(mapped), mapped.fingerprint()) == (0, EncodedRows().fingerprint())


@pytest.mark.parametrize("name", ["input_ids", "labels", "sequence_ends", "example_ends", "meta.json"])
def test_rows_that_are_not_whole_are_none(tmp_path: Path, name: str) -> None:
    _written(tmp_path / "rows", [EncodedSequence([1, 2], [1, 2]), EncodedSequence([3], [3])])
    file = tmp_path / "rows" / name
    file.write_bytes(file.read_bytes()[:-8])
    assert EncodedRows.mapped(tmp_path / "rows") is None
    file.unlink()
    assert EncodedRows.mapped(tmp_path / "rows") is None


_media = st.builds(Media, st.text(max_size=3), st.text(max_size=3), st.integers(0, 9), st.integers(0, 9))
_ids = st.lists(st.integers(0, 2**31 - 1), max_size=4)
_sequences = st.builds(
    lambda ids, media: EncodedSequence(ids, [IGNORE, *ids[1:]] if ids else [], tuple(media)),
    _ids,
    st.lists(_media, max_size=2),
)
_numbers = st.dictionaries(
    st.sampled_from(["margin", "scores"]), st.lists(st.floats(allow_nan=False), max_size=2).map(tuple), max_size=2
)
_text = st.text(max_size=3)
_parts = st.lists(_text | st.builds(ImagePart, _text), max_size=2).map(tuple)
_calls = st.builds(ToolCall, _text, st.dictionaries(_text, st.integers(), max_size=1))
_messages = st.builds(
    Message,
    st.sampled_from(ROLES),
    _text | _parts,
    st.none() | _text,
    st.lists(_calls, max_size=2).map(tuple),
    st.none() | st.booleans(),
)
_values = st.none() | st.booleans() | st.integers() | _text
_fields = st.dictionaries(_text, _values | st.lists(_values, max_size=2), max_size=2)
_prompts = st.builds(
    Prompt, st.lists(_messages, max_size=2).map(tuple), st.lists(_fields, max_size=1).map(tuple), _fields
)
_examples = st.builds(EncodedExample, st.lists(_sequences, max_size=3).map(tuple), _numbers, st.none() | _prompts)


def _plain(example: EncodedExample) -> EncodedExample:
    """Return an example with lists in place of arrays, to be compared."""
    sequences = (EncodedSequence(list(s.input_ids), list(s.labels), s.media) for s in example.sequences)
    return EncodedExample(tuple(sequences), dict(example.numbers), example.prompt)


@settings(deadline=None)
@given(examples=st.lists(_examples, max_size=6), flushed_at=st.sampled_from([1, 5, 1 << 20]))
def test_whatever_is_stored_comes_back(examples: list[EncodedExample], flushed_at: int) -> None:
    in_memory = EncodedRows()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_files, "_FLUSHED_AT", flushed_at)
        writer = RowWriter(Path(folder))
        for example in examples:
            writer.append(example)
            in_memory.append(example)
        writer.close({})
        mapped = EncodedRows.mapped(Path(folder))
    assert mapped is not None
    for rows in (in_memory, mapped):
        assert [_plain(example) for example in rows] == examples
        assert [_plain(rows[at]) for at in reversed(range(len(rows)))] == examples[::-1]
        assert rows.lengths() == [example.tokens for example in examples]
        assert rows.tokens == sum(example.tokens for example in examples)
        assert [s.media for s in rows.sequences()] == [s.media for e in examples for s in e.sequences]
    assert mapped.fingerprint() == in_memory.fingerprint()


def _fingerprint(*examples: EncodedExample) -> str:
    rows = EncodedRows()
    for example in examples:
        rows.append(example)
    return rows.fingerprint()


def test_the_fingerprint_covers_groups_numbers_and_images() -> None:
    first, second = EncodedSequence([1, 2], [1, 2]), EncodedSequence([3], [3])
    shown = EncodedSequence([1, 2], [1, 2], (Media("a.png", "d", 0, 1),))
    groups = {
        "one group": [EncodedExample((first, second))],
        "two groups": [EncodedExample((first,)), EncodedExample((second,))],
        "an empty group more": [EncodedExample((first, second)), EncodedExample(())],
        "a number": [EncodedExample((first, second), {"margin": (1.0,)})],
        "another number": [EncodedExample((first, second), {"margin": (2.0,)})],
        "another name": [EncodedExample((first, second), {"scores": (1.0,)})],
        "a number elsewhere": [EncodedExample((first,)), EncodedExample((second,), {"margin": (1.0,)})],
        "a number at first": [EncodedExample((first,), {"margin": (1.0,)}), EncodedExample((second,))],
        "a prompt": [EncodedExample((first, second), prompt=Prompt((Message("user", "?"),)))],
        "another field": [EncodedExample((first, second), prompt=Prompt((Message("user", "?"),), fields={"a": 1}))],
        "an image": [EncodedExample((shown, second))],
        "another image": [EncodedExample((EncodedSequence([1, 2], [1, 2], (Media("a.png", "e", 0, 1),)), second))],
    }
    assert len({_fingerprint(*examples) for examples in groups.values()}) == len(groups)


def test_plain_data_has_no_extras(tmp_path: Path) -> None:
    _written(tmp_path / "rows", [EncodedSequence([1, 2], [1, 2])] * 3)
    sizes = {name: (tmp_path / "rows" / name).stat().st_size for name in ("extras", "extra_ends", "extra_owners")}
    assert sizes == {"extras": 0, "extra_ends": 0, "extra_owners": 0}


@pytest.mark.parametrize("name", ["extras", "extra_ends", "extra_owners"])
def test_extras_that_are_not_whole_are_none(tmp_path: Path, name: str) -> None:
    writer = RowWriter(tmp_path)
    for margin in (1.0, 2.0):
        writer.append(EncodedExample((EncodedSequence([1], [1]),), {"margin": (margin,)}))
    writer.close({})
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:-1])
    assert EncodedRows.mapped(tmp_path) is None
    file.write_bytes(file.read_bytes()[:-7])
    assert EncodedRows.mapped(tmp_path) is None


def test_files_of_an_older_form_are_none(tmp_path: Path) -> None:
    _written(tmp_path / "rows", [EncodedSequence([1, 2], [1, 2])])
    (tmp_path / "rows" / "meta.json").write_text('{"rows": 1, "tokens": 2, "fingerprint": "x", "facts": {}}')
    assert EncodedRows.mapped(tmp_path / "rows") is None
