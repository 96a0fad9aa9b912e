"""Plain texts that look like control tokens: the pieces they are cut into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmflow_core.templates.control_tokens import ControlTokenBreaker


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", [""]),
        ("hello", ["hello"]),
        ("<s>", ["<", "s>"]),
        ("a<s>b<s>", ["a<", "s>b<", "s>"]),
        ("[INST] x", ["[", "INST] x"]),
        ("<s <s", ["<s <s"]),
    ],
)
def test_a_text_is_cut_behind_the_first_character_of_a_token(text: str, pieces: list[str]) -> None:
    assert ControlTokenBreaker(["<s>", "[INST]"]).pieces(text) == pieces


def test_a_token_that_begins_inside_another_is_cut_too() -> None:
    assert ControlTokenBreaker(["aba", "ba!"]).pieces("xaba!") == ["xa", "b", "a!"]


def test_without_tokens_a_text_stays_whole() -> None:
    assert ControlTokenBreaker([]).pieces("<s>") == ["<s>"]


@given(text=st.text("ab<>]", max_size=20), tokens=st.lists(st.text("ab<>]", min_size=2, max_size=4), max_size=4))
def test_no_piece_holds_a_token_and_none_is_lost(text: str, tokens: list[str]) -> None:
    pieces = ControlTokenBreaker(tokens).pieces(text)
    assert "".join(pieces) == text
    assert not any(token in piece for token in tokens for piece in pieces)
