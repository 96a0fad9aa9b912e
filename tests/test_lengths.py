"""Length policies on groups of sequences and on images: nothing is torn apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmflow_core.contracts.examples import (
    Candidates,
    Conversation,
    Example,
    ImageText,
    Judged,
    Message,
    Preference,
    Prompt,
    Prompted,
)
from lmflow_core.contracts.tokens import IGNORE, EncodedExample, EncodedSequence, Media
from lmflow_core.data.counts import Counts
from lmflow_core.data.encoding import Encoder
from lmflow_core.data.examples import Located
from lmflow_core.data.lengths import longest_sequence, split, truncated
from lmflow_core.data.preparation import Preparer
from lmflow_core.data.store import EncodedRows
from lmflow_core.errors import DataError
from lmflow_core.templates import ChatTemplate
from lmflow_core.testing.letters import Letters, Pictures

TURNS = ChatTemplate(user="U{content};", assistant_header="A", assistant="{content}|", stop=("|",))


def _sequence(length: int, *media: tuple[int, int]) -> EncodedSequence:
    """Return a sequence whose tokens are their places, with images of ``(start, tokens)``."""
    shown = tuple(Media(f"{start}.png", "d", start, tokens) for start, tokens in media)
    return EncodedSequence(list(range(length)), list(range(length)), shown)


def _text(sequence: EncodedSequence) -> str:
    return "".join("#" if number == 1 else Letters().decode([number]) for number in sequence.input_ids)


def test_the_longest_sequence_counts() -> None:
    assert longest_sequence(EncodedExample((_sequence(3), _sequence(5), _sequence(1)))) == 5
    assert longest_sequence(EncodedExample((_sequence(4),))) == 4
    assert longest_sequence(EncodedExample(())) == 0


@pytest.mark.parametrize(
    ("limit", "ids", "media"),
    [
        (2, 2, []),
        (3, 2, []),
        (4, 2, []),
        (5, 5, ["2.png"]),
        (6, 6, ["2.png"]),
        (7, 6, ["2.png"]),
        (9, 9, ["2.png", "6.png"]),
    ],
)
def test_a_cut_falls_before_an_image(limit: int, ids: int, media: list[str]) -> None:
    example = EncodedExample((_sequence(9, (2, 3), (6, 2)), _sequence(1)), {"margin": (1.0,)})
    cut, short = truncated(example, limit).sequences
    assert (list(cut.input_ids), [m.source for m in cut.media]) == (list(range(ids)), media)
    assert short == _sequence(1)
    assert truncated(example, limit).numbers == {"margin": (1.0,)}


def test_pieces_begin_anew_before_an_image() -> None:
    pieces = split(EncodedExample((_sequence(10, (2, 3), (5, 2)),)), 4)
    assert [list(piece.sequences[0].input_ids) for piece in pieces] == [[0, 1], [2, 3, 4], [5, 6, 7, 8], [9]]
    assert [[(m.source, m.start, m.tokens) for m in piece.sequences[0].media] for piece in pieces] == [
        [],
        [("2.png", 0, 3)],
        [("5.png", 0, 2)],
        [],
    ]
    assert split(EncodedExample((_sequence(10, (2, 5)),)), 4) == []
    assert split(EncodedExample((_sequence(5), _sequence(1))), 4) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), max_size=5), st.integers(0, 4), st.integers(4, 9))
def test_pieces_hold_everything_once(gaps: list[tuple[int, int]], tail: int, limit: int) -> None:
    media, at = [], 0
    for gap, tokens in gaps:
        media.append((at + gap, tokens))
        at += gap + tokens
    whole = _sequence(at + tail, *media)
    pieces = [piece.sequences[0] for piece in split(EncodedExample((whole,)), limit)]
    assert [number for piece in pieces for number in piece.input_ids] == list(whole.input_ids)
    assert all(1 <= len(piece.input_ids) <= limit for piece in pieces)
    # Each image lies in one piece, on the tokens that it had in the whole.
    found = [(piece.input_ids[m.start], m) for piece in pieces for m in piece.media]
    assert [(start, m.source, m.tokens) for start, m in found] == [(m.start, m.source, m.tokens) for m in whole.media]
    assert all(m.start + m.tokens <= len(piece.input_ids) for piece in pieces for m in piece.media)


ASK = Message("user", "u")
LONG, SHORT = Conversation((ASK, Message("assistant", "abcdef"))), Conversation((ASK, Message("assistant", "a")))
# Sequences of 11 and 6, 6, 4 and 8, 11, 8 and 11 tokens.
GROUPS: tuple[Example, ...] = (
    Preference(LONG, SHORT, 2.0),
    Judged(SHORT, False),
    Candidates("p", ("ab", "abcdef"), (1.0, 2.0)),
    Prompt((Message("user", "abcdefgh"),)),
    ImageText(("xxxx",), "abc"),
    Prompted("pppppppp", "ab"),
)
POLICIES: dict[str, tuple[list[list[str]], Counts]] = {
    "drop": (
        [["Uu;Aa|"]],
        Counts(rows=6, examples=1, sequences=1, tokens=6, trained_tokens=2, longest=11, too_long=5, dropped=5),
    ),
    "truncate": (
        [["Uu;Aabc", "Uu;Aa|"], ["Uu;Aa|"], ["pab|", "pabcdef"], ["####abc"]],
        Counts(
            rows=6, examples=4, sequences=6, tokens=37, trained_tokens=19, longest=11, too_long=5, dropped=1,
            truncated=4, untrained=1,
        ),
    ),
    "split": (
        [["Uu;Aa|"], ["####abc"], ["pab|"]],
        Counts(
            rows=6, examples=3, sequences=3, tokens=17, trained_tokens=8, longest=11, too_long=5, dropped=3,
            split=2, untrained=2,
        ),
    ),
}  # fmt: skip


def _prepared(policy: str, *examples: Example, limit: int | None = 7) -> tuple[EncodedRows, Counts]:
    preparer = Preparer(Encoder(Letters(), TURNS, media=Pictures()), limit, policy)
    rows = preparer.prepare(Located(example, Path("data.json"), at) for at, example in enumerate(examples, start=1))
    return rows, preparer.counts


@pytest.mark.parametrize("policy", POLICIES)
def test_what_each_policy_keeps_of_groups(policy: str) -> None:
    texts, counts = POLICIES[policy]
    rows, found = _prepared(policy, *GROUPS)
    assert [[_text(sequence) for sequence in example.sequences] for example in rows] == texts
    assert found == counts


def test_numbers_stay_with_their_group() -> None:
    rows, _ = _prepared("truncate", *GROUPS)
    assert [example.numbers for example in rows] == [
        {"margin": (2.0,)},
        {"desirable": (0.0,)},
        {"scores": (1.0, 2.0)},
        {},
    ]


def test_groups_that_are_too_long_are_an_error_that_counts_rows() -> None:
    with pytest.raises(DataError) as caught:
        _prepared("error", *GROUPS)
    assert str(caught.value) == (
        "data.json, row 1: 5 of 6 rows are longer than 7 tokens (this is the first; the longest has 11). "
        "Raise --max-length, or choose --length-policy drop, truncate or split"
    )


def test_a_prompt_leaves_room_for_an_answer() -> None:
    asks = [Prompt((Message("user", text),)) for text in ("abcd", "abc")]
    preparer = Preparer(Encoder(Letters(), TURNS), 7, "drop", context=7)
    rows = preparer.prepare(Located(ask, Path("data.json"), at) for at, ask in enumerate(asks, start=1))
    assert [_text(sequence) for sequence in rows.sequences()] == ["Uabc;A"]
    preparer = Preparer(Encoder(Letters(), TURNS), 7, "error", context=7)
    with pytest.raises(DataError, match="row 1: 1 of 2 rows are longer than 6 tokens"):
        preparer.prepare(Located(ask, Path("data.json"), at) for at, ask in enumerate(asks, start=1))


def test_a_group_needs_something_to_learn_in_each_sequence_and_a_prompt_in_none() -> None:
    half = Preference(Conversation((ASK, Message("assistant", "a", train=False))), SHORT)
    rows, counts = _prepared("error", half, Prompt((ASK,)), limit=None)
    assert counts == Counts(rows=2, examples=1, sequences=1, tokens=4, longest=6, untrained=1)
    assert [set(sequence.labels) for sequence in rows.sequences()] == [{IGNORE}]
