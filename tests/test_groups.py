"""What each kind of example becomes: its sequences, its numbers, and where its images stand."""

from __future__ import annotations

import math
from array import array

import pytest

from lmflow_core.contracts.examples import (
    Candidates,
    Conversation,
    Example,
    ImagePart,
    ImageText,
    Judged,
    Message,
    Preference,
    Prompt,
    Prompted,
    Text,
    Value,
)
from lmflow_core.contracts.tokens import IGNORE, EncodedExample, EncodedSequence, Media
from lmflow_core.data.encoding import Encoder
from lmflow_core.generation.answers import encoded_prompt
from lmflow_core.templates import ChatTemplate
from lmflow_core.testing.letters import Letters, Pictures
from lmflow_core.testing.tiny import make_tokenizer
from lmflow_transformers.tokenizers import TransformersTokenizer

TURNS = ChatTemplate(user="U{content};", assistant_header="A", assistant="{content}|", stop=("|",))
ASK, ANSWER, OTHER = Message("user", "u"), Message("assistant", "ab"), Message("assistant", "c")
ASKED = Prompt((ASK, ANSWER, ASK), fields={"answer": "five"})
CHOSEN, REJECTED = Conversation((ASK, ANSWER)), Conversation((ASK, OTHER))


def _sequence(text: str, mask: str, *media: Media) -> EncodedSequence:
    """Return a sequence of a text; ``_`` masks what has no label, and ``#`` in the text is a token of an image."""
    ids = [1 if letter == "#" else 0 if letter == "|" else ord(letter) for letter in text]
    labels = [IGNORE if letter == "_" else number for letter, number in zip(mask, ids, strict=True)]
    return EncodedSequence(array("i", ids), array("i", labels), media)


KINDS: dict[str, tuple[Example, EncodedExample]] = {
    "text": (Text("ab"), EncodedExample((_sequence("ab|", "ab|"),))),
    "prompted": (Prompted("ab", "c"), EncodedExample((_sequence("abc|", "__c|"),))),
    "conversation": (CHOSEN, EncodedExample((_sequence("Uu;Aab|", "____ab|"),))),
    "prompt": (ASKED, EncodedExample((_sequence("Uu;Aab|Uu;A", "___________"),), prompt=ASKED)),
    "preference": (
        Preference(CHOSEN, REJECTED),
        EncodedExample((_sequence("Uu;Aab|", "____ab|"), _sequence("Uu;Ac|", "____c|"))),
    ),
    "preference with a margin": (
        Preference(Prompted("p", "a"), Prompted("p", "b"), 0.5),
        EncodedExample((_sequence("pa|", "_a|"), _sequence("pb|", "_b|")), {"margin": (0.5,)}),
    ),
    "judged good": (Judged(CHOSEN, True), EncodedExample((_sequence("Uu;Aab|", "____ab|"),), {"desirable": (1.0,)})),
    "judged bad": (
        Judged(Prompted("p", "a"), False),
        EncodedExample((_sequence("pa|", "_a|"),), {"desirable": (0.0,)}),
    ),
    "candidates": (
        Candidates("p", ("a", "b", "cc")),
        EncodedExample(
            (_sequence("pa|", "_a|"), _sequence("pb|", "_b|"), _sequence("pcc|", "_cc|")), {"scores": (math.nan,) * 3}
        ),
    ),
    "candidates with scores": (
        Candidates("p", ("a", "b"), (0.25, -1.0)),
        EncodedExample((_sequence("pa|", "_a|"), _sequence("pb|", "_b|")), {"scores": (0.25, -1.0)}),
    ),
    "image and text": (
        ImageText(("x", "yy"), "ab"),
        EncodedExample(
            (_sequence("###ab|", "___ab|", Media("x", "digest of x", 0, 1), Media("yy", "digest of yy", 1, 2)),)
        ),
    ),
    "conversation with images": (
        Conversation((Message("user", (ImagePart("xx"), "u", ImagePart("y"), "v")), ANSWER)),
        EncodedExample(
            (
                _sequence(
                    "U##u#v;Aab|",
                    "________ab|",
                    Media("xx", "digest of xx", 1, 2),
                    Media("y", "digest of y", 4, 1),
                ),
            )
        ),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_becomes_its_group(kind: str) -> None:
    example, expected = KINDS[kind]
    assert Encoder(Letters(), TURNS, media=Pictures()).encode([example]) == [expected]


def test_a_batch_is_one_call_of_the_tokenizer_and_keeps_groups_apart() -> None:
    tokenizer = Letters()
    encoded = Encoder(tokenizer, TURNS, media=Pictures()).encode([example for example, _ in KINDS.values()])
    assert encoded == [expected for _, expected in KINDS.values()]
    assert tokenizer.calls == 1


def test_a_number_alone_has_no_sequence() -> None:
    with pytest.raises(ValueError, match=r"^a value example has no sequence$"):
        Encoder(Letters(), TURNS).encode([Value(1.0)])


@pytest.mark.parametrize("example", [Prompt((ASK,)), Preference(CHOSEN, REJECTED), Judged(CHOSEN, True)])
def test_messages_need_a_template(example: Example) -> None:
    with pytest.raises(ValueError, match=r"^a conversation needs a template, and none is chosen"):
        Encoder(Letters(), None).encode([example])


def test_images_need_a_model_that_takes_them_and_to_be_readable() -> None:
    with pytest.raises(ValueError, match=r"^the model takes no images: choose one that does, or leave them out$"):
        Encoder(Letters(), TURNS).encode([ImageText(("x",), "a")])
    with pytest.raises(ValueError, match=r"^broken cannot be read as an image$"):
        Encoder(Letters(), TURNS, media=Pictures()).encode([ImageText(("broken",), "a")])


def test_an_image_is_never_learned_where_its_turn_is() -> None:
    conversation = Conversation((Message("user", ("u", ImagePart("xx"), "v")), ANSWER))
    [encoded] = Encoder(Letters(), TURNS, "all", Pictures()).encode([conversation])
    assert encoded.sequences == (_sequence("Uu##v;Aab|", "_u__v__ab|", Media("xx", "digest of xx", 2, 2)),)


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_only_a_user_shows_images(role: str) -> None:
    messages = {
        "system": (Message("system", (ImagePart("x"),)), ASK, ANSWER),
        "assistant": (ASK, Message("assistant", ("a", ImagePart("x")))),
    }
    template = ChatTemplate(system="{content}", user="{content}", assistant="{content}|", stop=("|",))
    with pytest.raises(ValueError, match=rf"^an image stands in a {role} message; only a user's message may hold one$"):
        Encoder(Letters(), template, media=Pictures()).encode([Conversation(messages[role])])


def test_a_prompt_has_the_ids_that_an_answer_is_asked_for_with() -> None:
    tokenizer = TransformersTokenizer(make_tokenizer())
    template = ChatTemplate(user="{content} ", assistant="{content}", assistant_end=" ", stop=())
    messages = (Message("user", "hello wor"), Message("assistant", "ld the"), Message("user", "quick brown"))
    [encoded] = Encoder(tokenizer, template).encode([Prompt(messages)])
    assert list(encoded.sequences[0].input_ids) == list(
        encoded_prompt(Encoder(tokenizer, template), messages).input_ids
    )
    assert set(encoded.sequences[0].labels) == {IGNORE}
