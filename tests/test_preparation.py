"""Lengths, counts and fingerprints, with a tokenizer of one token per character."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lmflow_core.contracts.examples import Conversation, Example, Message, Prompted, Text
from lmflow_core.contracts.tokens import IGNORE, EncodedSequence
from lmflow_core.data.counts import Counts, trained_tokens
from lmflow_core.data.encoding import Encoder
from lmflow_core.data.examples import Located
from lmflow_core.data.preparation import Preparer
from lmflow_core.data.store import EncodedRows
from lmflow_core.errors import DataError
from lmflow_core.templates import ChatTemplate
from lmflow_core.templates.control_tokens import ControlTextError
from lmflow_core.testing.letters import Letters

FILE = Path("data.json")


def _located(*examples: Example) -> list[Located]:
    return [Located(example, FILE, row) for row, example in enumerate(examples, start=1)]


def _preparer(max_length: int | None, policy: str) -> Preparer:
    return Preparer(Encoder(Letters(), None), max_length, policy)


def _ids(rows: EncodedRows) -> list[str]:
    return [Letters().decode(sequence.input_ids) for sequence in rows.sequences()]


def _labels(rows: EncodedRows) -> list[str]:
    return [
        "".join("_" if label == IGNORE else chr(label) if label else "|" for label in s.labels)
        for s in rows.sequences()
    ]


# 3, 7, 10 and 8 tokens with the end token; the last learns its completion alone.
EXAMPLES = (Text("ab"), Text("cdefgh"), Text("ijklmnopq"), Prompted("rstuv", "xy"))

KEPT: dict[str, tuple[list[str], list[str], Counts]] = {
    "drop": (
        ["ab|"],
        ["ab|"],
        Counts(rows=4, examples=1, sequences=1, tokens=3, trained_tokens=2, longest=10, too_long=3, dropped=3),
    ),
    "truncate": (
        ["ab|", "cdefg", "ijklm"],
        ["ab|", "cdefg", "ijklm"],
        Counts(
            rows=4,
            examples=3,
            sequences=3,
            tokens=13,
            trained_tokens=10,
            longest=10,
            too_long=3,
            truncated=3,
            untrained=1,
        ),
    ),
    "split": (
        ["ab|", "cdefg", "h|", "ijklm", "nopq|", "xy|"],
        ["ab|", "cdefg", "h|", "ijklm", "nopq|", "xy|"],
        Counts(
            rows=4, examples=6, sequences=6, tokens=23, trained_tokens=17, longest=10, too_long=3, split=3, untrained=1
        ),
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
    assert preparer.counts == Counts(rows=4, examples=4, sequences=4, tokens=28, trained_tokens=20, longest=10)
    assert preparer.counts.as_dict() == {
        "rows": 4,
        "examples": 4,
        "sequences": 4,
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
    encoded = [
        (found.row, Letters().decode(example.sequences[0].input_ids))
        for found, example in preparer.encode(iter(located))
    ]
    assert encoded == [(number + 1, f"{number:04}|") for number in range(1300)]


def test_the_first_token_is_never_learned() -> None:
    assert trained_tokens(EncodedSequence([1, 2, 3], [1, 2, 3])) == 2
    assert trained_tokens(EncodedSequence([1, 2, 3], [1, IGNORE, IGNORE])) == 0
    assert trained_tokens(EncodedSequence([1, 2, 3], [IGNORE, 0, IGNORE])) == 1
    assert trained_tokens(EncodedSequence([], [])) == 0


class _TakesParagraphs(Letters):
    def encode(self, texts: Sequence[str], continues: Sequence[bool]) -> list[list[int]]:
        if any("§" in text for text in texts):
            raise ControlTextError("the text holds the character '§'")
        return super().encode(texts, continues)


def test_a_text_that_cannot_but_become_a_control_token_is_told_by_its_row() -> None:
    preparer = Preparer(Encoder(_TakesParagraphs(), None), None, "error")
    with pytest.raises(DataError, match=r"^data.json, row 3: the text holds the character '§'$"):
        preparer.prepare(_located(Text("a"), Text("b"), Text("c § 1"), Text("§ 2")))
