"""Lengths, counts and fingerprints, with a tokenizer of one token per character."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lmflow_core.contracts.examples import Conversation, Example, Message, Prompted, Text
from lmflow_core.contracts.tokens import IGNORE, Encoded
from lmflow_core.data import store
from lmflow_core.data.encoding import Encoder
from lmflow_core.data.examples import Located
from lmflow_core.data.preparation import Counts, Preparer, trained_tokens
from lmflow_core.data.store import EncodedRows, RowWriter
from lmflow_core.errors import DataError
from lmflow_core.templates import ChatTemplate

FILE = Path("data.json")


class Letters:
    """One token per character, its code; the end token is 0."""

    bos: str | None = None
    eos: str | None = "|"
    control_tokens: Mapping[str, int] = {"|": 0}
    spaces_after_control = True
    fingerprint = "letters"
    bos_token = chat_template = None
    swallows_space: Mapping[str, tuple[bool, bool]] = {}

    def encode(self, texts: Sequence[str], continues: Sequence[bool]) -> list[list[int]]:
        return [[ord(letter) for letter in text] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(number) if number else "|" for number in ids)

    def render_chat(
        self, messages: Sequence[Message], add_generation_prompt: bool, tools: object = (), jinja: str | None = None
    ) -> str | None:
        return None


def _located(*examples: Example) -> list[Located]:
    return [Located(example, FILE, row) for row, example in enumerate(examples, start=1)]


def _preparer(max_length: int | None, policy: str) -> Preparer:
    return Preparer(Encoder(Letters(), None), max_length, policy)


def _ids(rows: EncodedRows) -> list[str]:
    return [Letters().decode(row.input_ids) for row in rows]


def _labels(rows: EncodedRows) -> list[str]:
    return ["".join("_" if label == IGNORE else chr(label) if label else "|" for label in row.labels) for row in rows]


# 3, 7, 10 and 8 tokens with the end token; the last learns its completion alone.
EXAMPLES = (Text("ab"), Text("cdefgh"), Text("ijklmnopq"), Prompted("rstuv", "xy"))

KEPT: dict[str, tuple[list[str], list[str], Counts]] = {
    "drop": (
        ["ab|"],
        ["ab|"],
        Counts(rows=4, examples=1, tokens=3, trained_tokens=2, longest=10, too_long=3, dropped=3),
    ),
    "truncate": (
        ["ab|", "cdefg", "ijklm"],
        ["ab|", "cdefg", "ijklm"],
        Counts(rows=4, examples=3, tokens=13, trained_tokens=10, longest=10, too_long=3, truncated=3, untrained=1),
    ),
    "split": (
        ["ab|", "cdefg", "h|", "ijklm", "nopq|", "xy|"],
        ["ab|", "cdefg", "h|", "ijklm", "nopq|", "xy|"],
        Counts(rows=4, examples=6, tokens=23, trained_tokens=17, longest=10, too_long=3, split=3, untrained=1),
    ),
}


@pytest.mark.parametrize("policy", KEPT)
def test_what_each_policy_keeps(policy: str) -> None:
    texts, labels, counts = KEPT[policy]
    preparer = _preparer(5, policy)
    rows = preparer.prepare(_located(*EXAMPLES))
    assert (_ids(rows), _labels(rows), preparer.counts) == (texts, labels, counts)


@pytest.mark.parametrize("policy", ["error", *KEPT])
@pytest.mark.parametrize("limit", [10, None])
def test_what_fits_is_left_alone(policy: str, limit: int | None) -> None:
    preparer = _preparer(limit, policy)
    rows = preparer.prepare(_located(*EXAMPLES))
    assert _ids(rows) == ["ab|", "cdefgh|", "ijklmnopq|", "rstuvxy|"]
    assert _labels(rows) == ["ab|", "cdefgh|", "ijklmnopq|", "_____xy|"]
    assert preparer.counts == Counts(rows=4, examples=4, tokens=28, trained_tokens=20, longest=10)
    assert preparer.counts.as_dict() == {
        "rows": 4,
        "examples": 4,
        "tokens": 28,
        "trained_tokens": 20,
        "longest": 10,
        "too_long": 0,
        "dropped": 0,
        "truncated": 0,
        "split": 0,
        "untrained": 0,
    }


def test_too_long_rows_are_an_error_that_names_the_first() -> None:
    with pytest.raises(DataError) as caught:
        _preparer(5, "error").prepare(_located(*EXAMPLES))
    assert str(caught.value) == (
        "data.json, row 2: 3 of 4 rows are longer than 5 tokens (this is the first; the longest has 10). "
        "Raise --max-length, or choose --length-policy drop, truncate or split"
    )


NOTHING: dict[str, tuple[str, tuple[Example, ...], str]] = {
    "no rows": (
        "error",
        (),
        "none of the 0 rows has a trainable token (dropped as too long: 0, without a trainable token: 0)",
    ),
    "all dropped": (
        "drop",
        EXAMPLES[1:],
        "none of the 3 rows has a trainable token (dropped as too long: 3, without a trainable token: 0)",
    ),
    "all cut before the completion": (
        "truncate",
        (EXAMPLES[3], Prompted("abcde", "f")),
        "none of the 2 rows has a trainable token (dropped as too long: 0, without a trainable token: 2)",
    ),
    "one token alone, which nothing predicts": (
        "error",
        (Text(""),),
        "none of the 1 rows has a trainable token (dropped as too long: 0, without a trainable token: 1)",
    ),
}


@pytest.mark.parametrize("name", NOTHING)
def test_nothing_to_train_on_is_an_error(name: str) -> None:
    policy, examples, problem = NOTHING[name]
    with pytest.raises(DataError) as caught:
        _preparer(5, policy).prepare(_located(*examples))
    assert str(caught.value) == f"nothing to train on: {problem}"


def test_a_conversation_that_does_not_fit_is_told_by_file_and_row() -> None:
    system = Conversation((Message("system", "s"), Message("user", "u"), Message("assistant", "a")))
    located = _located(Text("ab"), system)
    with pytest.raises(DataError) as caught:
        _preparer(5, "error").prepare(located)
    assert str(caught.value) == (
        "data.json, row 2: a conversation needs a template, and none is chosen: add --template NAME"
    )
    template = ChatTemplate(user="{content}", assistant="{content}", stop=())
    with pytest.raises(DataError) as caught:
        Preparer(Encoder(Letters(), template), 5, "error").prepare(located)
    assert str(caught.value) == "data.json, row 2: the template has no place for a system message"


def test_batches_keep_the_order_of_the_rows() -> None:
    located = _located(*(Text(f"{number:04}") for number in range(1300)))
    preparer = _preparer(None, "error")
    encoded = [(found.row, Letters().decode(row.input_ids)) for found, row in preparer.encode(iter(located))]
    assert encoded == [(number + 1, f"{number:04}|") for number in range(1300)]


def test_the_first_token_is_never_learned() -> None:
    assert trained_tokens(Encoded([1, 2, 3], [1, 2, 3])) == 2
    assert trained_tokens(Encoded([1, 2, 3], [1, IGNORE, IGNORE])) == 0
    assert trained_tokens(Encoded([1, 2, 3], [IGNORE, 0, IGNORE])) == 1
    assert trained_tokens(Encoded([], [])) == 0


def _rows(*rows: Encoded) -> EncodedRows:
    kept = EncodedRows()
    for row in rows:
        kept.append(row)
    return kept


def test_rows_are_fetched_by_position() -> None:
    rows = _rows(Encoded([1, 2], [IGNORE, 2]), Encoded([], []), Encoded([2**31 - 1], [0]))
    fetched = [(list(row.input_ids), list(row.labels)) for row in rows]
    assert fetched == [([1, 2], [IGNORE, 2]), ([], []), ([2**31 - 1], [0])]
    assert [(list(rows[at].input_ids), list(rows[at].labels)) for at in (2, 0, 1)] == [fetched[at] for at in (2, 0, 1)]
    assert (len(rows), rows.tokens) == (3, 3)
    assert (len(EncodedRows()), EncodedRows().tokens, list(EncodedRows())) == (0, 0, [])


@pytest.mark.parametrize("position", [3, -1, 1000])
def test_there_is_no_row_outside(position: int) -> None:
    with pytest.raises(IndexError, match=f"^{position}$"):
        _ = _rows(Encoded([1], [1]), Encoded([2], [2]), Encoded([3], [3]))[position]


def test_the_fingerprint_covers_every_id_label_and_boundary() -> None:
    first, second = Encoded([1, 2], [IGNORE, 2]), Encoded([3, 4], [3, 4])
    prints = {
        "as it is": _rows(first, second),
        "another id": _rows(Encoded([1, 5], [IGNORE, 2]), second),
        "another label": _rows(Encoded([1, 2], [1, 2]), second),
        "another boundary": _rows(Encoded([1, 2, 3], [IGNORE, 2, 3]), Encoded([4], [4])),
        "no boundary": _rows(Encoded([1, 2, 3, 4], [IGNORE, 2, 3, 4])),
        "another order": _rows(second, first),
        "one row less": _rows(first),
        "an empty row more": _rows(first, second, Encoded([], [])),
        "nothing": _rows(),
    }
    assert len({rows.fingerprint() for rows in prints.values()}) == len(prints)


def _written(folder: Path, rows: Sequence[Encoded], **facts: int) -> EncodedRows | None:
    folder.mkdir()
    writer = RowWriter(folder)
    for row in rows:
        writer.append(row)
    writer.close(facts)
    return EncodedRows.mapped(folder)


@pytest.mark.parametrize("flushed_at", [1, 3, 1 << 20])
def test_rows_from_files_are_those_that_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushed_at: int
) -> None:
    monkeypatch.setattr(store, "_FLUSHED_AT", flushed_at)
    rows = [Encoded([1, 2], [IGNORE, 2]), Encoded([], []), Encoded([2**31 - 1], [0]), Encoded([5], [5])]
    mapped = _written(tmp_path / "rows", rows, answer=42)
    assert mapped is not None
    assert [(list(row.input_ids), list(row.labels)) for row in mapped] == [(r.input_ids, r.labels) for r in rows]
    assert (len(mapped), mapped.tokens, mapped.lengths()) == (4, 4, [2, 0, 1, 1])
    assert mapped.fingerprint() == _rows(*rows).fingerprint()
    assert store.read_meta(tmp_path / "rows")["facts"] == {"answer": 42}  # type: ignore[index]


def test_no_rows_at_all_can_be_written(tmp_path: Path) -> None:
    mapped = _written(tmp_path / "rows", [])
    assert mapped is not None
    assert (len(mapped), mapped.fingerprint()) == (0, EncodedRows().fingerprint())


@pytest.mark.parametrize("name", ["input_ids", "labels", "ends", "meta.json"])
def test_rows_that_are_not_whole_are_none(tmp_path: Path, name: str) -> None:
    _written(tmp_path / "rows", [Encoded([1, 2], [1, 2]), Encoded([3], [3])])
    file = tmp_path / "rows" / name
    file.write_bytes(file.read_bytes()[:-8])
    assert EncodedRows.mapped(tmp_path / "rows") is None
    file.unlink()
    assert EncodedRows.mapped(tmp_path / "rows") is None
