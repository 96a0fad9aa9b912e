"""Plain texts that look like control tokens: the pieces they are cut into."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmflow_core.templates.control_tokens import ControlTextError, ControlTokenBreaker, PlainTextEncoder


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


CONTROL = {"<s>": -1, "[INST]": -2, "\n": -3, "<unk>": -4}


class Shouting:
    """Reads capitals as small letters and ``§`` as ``<s>``, and then finds control tokens; ``?`` is unknown to it."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, texts: Sequence[str], continues: Sequence[bool]) -> list[list[int]]:
        self.calls += 1
        return [[*self._ids("" if follows else "_", text)] for text, follows in zip(texts, continues, strict=True)]

    def _ids(self, start: str, text: str) -> list[int]:
        read = (start + text).replace("§", "<s>").lower()
        ids = []
        while read:
            name = next((name for name in CONTROL if read.startswith(name.lower())), "")
            ids.append(CONTROL[name] if name else CONTROL["<unk>"] if read[0] == "?" else ord(read[0]))
            read = read[len(name) or 1 :]
        return ids


def _text(ids: Sequence[int]) -> str:
    return "".join(chr(number) if number > 0 else "!!\n?"[-number - 1] for number in ids)


@pytest.mark.parametrize(
    "text", ["<s>", "<S>", "a<S>b", "[Inst]<S>" * 99, "<<S>S>", "[inst]x [INST]", "", "a\nb", "<S>?"]
)
def test_no_text_becomes_a_control_token_and_none_is_lost(text: str) -> None:
    encoder = PlainTextEncoder(Shouting(), CONTROL, CONTROL["<unk>"])
    assert [*map(_text, encoder.encode([text, "x"], [True, False]))] == [text.lower(), "_x"]
    assert [*map(_text, encoder.encode([text], [False]))] == ["_" + text.lower()]


def test_one_character_that_becomes_a_control_token_is_refused() -> None:
    encoder = PlainTextEncoder(Shouting(), CONTROL, CONTROL["<unk>"])
    with pytest.raises(
        ControlTextError, match=r"^the text holds the character '§' \(U\+00A7\), which .* '<s>': leave it"
    ):
        encoder.encode(["x", "paragraph § 3"], [False, True])
    with pytest.raises(ControlTextError, match=r"'\?' .* '<unk>'"):
        PlainTextEncoder(Shouting(), CONTROL).encode(["what?"], [False])


def test_many_texts_are_halved_together() -> None:
    tokenizer = Shouting()
    encoder = PlainTextEncoder(tokenizer, CONTROL, CONTROL["<unk>"])
    before = tokenizer.calls
    encoder.encode(["plain"] * 1000, [True] * 1000)
    assert tokenizer.calls == before + 1
    encoder.encode(["<S>" * 1000] * 20, [True] * 20)
    assert tokenizer.calls < before + 16


@given(text=st.text("ab<>sSINTint[]§? \n", max_size=30))
def test_texts_of_every_shape(text: str) -> None:
    encoder = PlainTextEncoder(Shouting(), CONTROL, CONTROL["<unk>"])
    if "§" in text:
        with pytest.raises(ControlTextError):
            encoder.encode([text], [True])
    else:
        assert _text(encoder.encode([text], [True])[0]) == text.lower()
