"""Segments to ids and labels, checked by hand: with a tokenizer of letters, and with a real one."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmflow_core.contracts.examples import Conversation, Example, Message, Prompted, Segment, Text
from lmflow_core.contracts.tokens import IGNORE, EncodedSequence
from lmflow_core.data.encoding import Encoder
from lmflow_core.generation.answers import encoded_prompt
from lmflow_core.templates import ChatTemplate
from lmflow_core.testing.tiny import make_tokenizer
from lmflow_transformers.tokenizers import TransformersTokenizer

CHATML = ChatTemplate(
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    assistant_header="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    assistant_end="\n",
    stop=("<|im_end|>",),
)
ASK, ANSWER = Message("user", "What is the capital of France?"), Message("assistant", "Paris.")


class Letters:
    """One token per character, its code; control tokens are negative. It writes down what it is asked."""

    bos: str | None = None
    eos: str | None = "<e>"
    control_tokens: Mapping[str, int] = {"<e>": -1, "<b>": -2, "<b>b>": -3}
    fingerprint = "letters"
    swallows_space: Mapping[str, tuple[bool, bool]] = {}
    chat_template: str | None = None

    @property
    def bos_token(self) -> str | None:
        return self.bos

    def __init__(self, spaces_after_control: bool = True, bos: str | None = None) -> None:
        self.spaces_after_control = spaces_after_control
        self.bos = bos
        self.asked: list[tuple[str, bool]] = []

    def encode(self, texts: Sequence[str], continues: Sequence[bool]) -> list[list[int]]:
        self.asked += zip(texts, continues, strict=True)
        return [[ord(letter) for letter in text] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        names = {number: text for text, number in self.control_tokens.items()}
        return "".join(names[number] if number < 0 else chr(number) for number in ids)

    def render_chat(
        self, messages: Sequence[Message], add_generation_prompt: bool, tools: Any = (), jinja: str | None = None
    ) -> str | None:
        return None


def _codes(text: str) -> list[int]:
    return [ord(letter) for letter in text]


TURNS = ChatTemplate(
    begin="<b>", user="U{content}<e>", assistant_header="A", assistant="{content}<e>", assistant_end="\n", stop=("<e>",)
)


def _encoded(input_ids: list[int], labels: list[int]) -> EncodedSequence:
    return EncodedSequence(array("i", input_ids), array("i", labels))


def _sequence(encoder: Encoder, example: Example) -> EncodedSequence:
    """Return the one sequence of an example, which has no numbers."""
    [encoded] = encoder.encode([example])
    assert not encoded.numbers
    [sequence] = encoded.sequences
    return sequence


def test_ids_and_labels_of_a_conversation() -> None:
    tokenizer = Letters()
    conversation = Conversation((Message("user", "hi"), Message("assistant", "yo")))
    encoded = _sequence(Encoder(tokenizer, TURNS), conversation)
    assert list(encoded.input_ids) == [-2, *_codes("Uhi"), -1, *_codes("Ayo"), -1, *_codes("\n")]
    assert list(encoded.labels) == [IGNORE] * 6 + [*_codes("yo"), -1, IGNORE]
    assert tokenizer.asked == [("Uhi", False), ("A", False), ("yo", True), ("\n", False)]


def test_text_goes_on_after_a_control_token_where_no_space_is_made_up() -> None:
    tokenizer = Letters(spaces_after_control=False)
    Encoder(tokenizer, TURNS).encode([Conversation((Message("user", "hi"), Message("assistant", "yo")))])
    assert tokenizer.asked == [("Uhi", True), ("A", True), ("yo", True), ("\n", True)]


def test_plain_text_begins_behind_the_opening_token_as_it_would_alone() -> None:
    for spaces in (True, False):
        tokenizer = Letters(spaces, bos="<b>")
        Encoder(tokenizer, None).encode([Text("ab"), Prompted("ab", "cd")])
        list(encoded_prompt(Encoder(tokenizer, None), [Message("user", "ef")]).input_ids)
        assert tokenizer.asked == [("ab", False), ("ab", False), ("cd", True), ("ef", False)]


def test_ids_and_labels_of_text_and_of_a_prompt_with_its_completion() -> None:
    encoder = Encoder(Letters(), None)
    text, prompted = _sequence(encoder, Text("ab")), _sequence(encoder, Prompted("ab", "cd"))
    assert text == _encoded([97, 98, -1], [97, 98, -1])
    assert prompted == _encoded([97, 98, 99, 100, -1], [IGNORE, IGNORE, 99, 100, -1])
    encoder = Encoder(Letters(bos="<b>"), None)
    assert [_sequence(encoder, Text("ab")), _sequence(encoder, Prompted("ab", "cd"))] == [
        _encoded([-2, 97, 98, -1], [IGNORE, 97, 98, -1]),
        _encoded([-2, 97, 98, 99, 100, -1], [IGNORE, IGNORE, IGNORE, 99, 100, -1]),
    ]


def test_a_tokenizer_without_an_end_token_ends_no_text() -> None:
    tokenizer = Letters()
    tokenizer.eos = None
    assert _sequence(Encoder(tokenizer, None), Text("ab")) == _encoded([97, 98], [97, 98])


def test_control_tokens_are_found_in_the_template_alone_and_the_longest_wins() -> None:
    segments = [
        Segment("<b>b><b><e", control=True),
        Segment("><e>", trainable=False),
        Segment("<e>", True, control=True),
    ]
    [encoded] = Encoder(Letters(), None).encode_segments([segments])
    assert list(encoded.input_ids) == [-3, -2, *_codes("<e><e>"), -1]
    assert list(encoded.labels) == [IGNORE] * 8 + [-1]


def test_white_space_that_a_control_token_takes_is_left_out() -> None:
    tokenizer = Letters()
    tokenizer.swallows_space = {"<e>": (True, True), "<b>": (False, True)}
    segments = [
        Segment("x \n", trainable=True),
        Segment("<e>", True, control=True),
        Segment(" \n", control=True),
        Segment(" y "),
        Segment("<b>", control=True),
        Segment("  "),
    ]
    [encoded] = Encoder(tokenizer, None).encode_segments([segments])
    assert list(encoded.input_ids) == [*_codes("x"), -1, *_codes("y "), -2]
    assert list(encoded.labels) == [*_codes("x"), -1, *[IGNORE] * 3]


def test_examples_of_a_batch_do_not_touch_each_other() -> None:
    encoder = Encoder(Letters(), TURNS)
    examples: list[Example] = [
        Text("ab"),
        Conversation((Message("user", ""), Message("assistant", ""))),
        Prompted("p", "c"),
        Text("<e>"),
    ]
    assert encoder.encode(examples) == [encoder.encode([example])[0] for example in examples]
    assert encoder.encode([]) == []


def test_nothing_encodes_to_nothing() -> None:
    assert Encoder(Letters(), None).encode_segments([()]) == [_encoded([], [])]
    assert list(encoded_prompt(Encoder(Letters(), None), [Message("user", "")]).input_ids) == []


def test_a_conversation_needs_a_template_that_fits() -> None:
    conversation = Conversation((Message("system", "s"), Message("user", "u"), Message("assistant", "a")))
    with pytest.raises(ValueError, match=r"^a conversation needs a template, and none is chosen: add --template NAME$"):
        Encoder(Letters(), None).encode([conversation])
    with pytest.raises(ValueError, match=r"^the template has no place for a system message$"):
        Encoder(Letters(), TURNS).encode([conversation])


@pytest.fixture(scope="module")
def inner() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="module")
def tokenizer(inner: Any) -> TransformersTokenizer:
    return TransformersTokenizer(inner)


def test_tokens_and_labels_of_a_real_tokenizer(tokenizer: TransformersTokenizer, inner: Any) -> None:
    encoded = _sequence(Encoder(tokenizer, CHATML), Conversation((ASK, ANSWER)))
    assert inner.convert_ids_to_tokens(encoded.input_ids) == [
        *("<|im_start|>", "user", "Ċ", "What", "Ġis", "Ġthe", "Ġcapital", "Ġof", "ĠFrance", "?", "<|im_end|>", "Ċ"),
        *("<|im_start|>", "a", "ss", "istan", "t", "Ċ", "Pa", "ris", ".", "<|im_end|>", "Ċ"),
    ]
    trained = [*range(18, 22)]
    assert list(encoded.labels) == [number if at in trained else IGNORE for at, number in enumerate(encoded.input_ids)]


CONVERSATIONS: dict[str, tuple[Message, ...]] = {
    "single": (ASK, ANSWER),
    "several": (ASK, ANSWER, Message("user", "And the dog?"), Message("assistant", "The dog does not mind.")),
    "system": (Message("system", "Answer the question."), ASK, ANSWER),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_ids_are_those_of_the_tokenizers_own_template(tokenizer: TransformersTokenizer, inner: Any, name: str) -> None:
    messages = CONVERSATIONS[name]
    turns = [{"role": message.role, "content": message.content} for message in messages]
    encoded = _sequence(Encoder(tokenizer, CHATML), Conversation(messages))
    assert list(encoded.input_ids) == inner.apply_chat_template(turns, tokenize=True, return_dict=False)
    prompt = inner.apply_chat_template(turns[:-1], tokenize=True, add_generation_prompt=True, return_dict=False)
    assert list(encoded_prompt(Encoder(tokenizer, CHATML), messages[:-1]).input_ids) == prompt


CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_token_in_a_content_stays_text(tokenizer: TransformersTokenizer, control: str, role: str) -> None:
    nasty = f"say {control}{control}\n{control} to the dog"
    messages = [Message(role, nasty) if role == other else Message(other, "x") for other in ("system", "user")]
    answer = Message("assistant", nasty if role == "assistant" else "x")
    encoded = _sequence(Encoder(tokenizer, CHATML), Conversation((*messages, answer)))
    found = [number for number in encoded.input_ids if number in tokenizer.control_tokens.values()]
    assert found == [1, 2] * 3
    text = "".join(segment.text for segment in CHATML.render((*messages, answer), False))
    assert tokenizer.decode(encoded.input_ids) == text
    assert nasty in text


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_token_in_plain_text_stays_text(tokenizer: TransformersTokenizer, control: str) -> None:
    encoder = Encoder(tokenizer, None)
    text, prompted = _sequence(encoder, Text(control)), _sequence(encoder, Prompted(control, control))
    assert [number for number in text.input_ids if number < 3] == [2]
    assert [number for number in prompted.input_ids if number < 3] == [2]
    assert tokenizer.decode(prompted.input_ids) == f"{control}{control}<|im_end|>"
    assert (
        list(encoded_prompt(Encoder(tokenizer, None), [Message("user", control)]).input_ids)
        == list(text.input_ids)[:-1]
    )


_contents = st.lists(st.text(max_size=6) | st.sampled_from([*CONTROLS, "<|", "|>", "<|im_", "user\n"]), max_size=5).map(
    "".join
)


@settings(max_examples=200, deadline=None)
@given(system=st.none() | _contents, contents=st.lists(_contents, min_size=2, max_size=4))
def test_control_ids_come_from_the_template_alone_and_prompts_are_prefixes(
    tokenizer: TransformersTokenizer, system: str | None, contents: list[str]
) -> None:
    turns = [Message(("user", "assistant")[at % 2], text) for at, text in enumerate(contents[: len(contents) // 2 * 2])]
    messages = [*([] if system is None else [Message("system", system)]), *turns]
    encoded = _sequence(Encoder(tokenizer, CHATML), Conversation(tuple(messages)))
    ids, labels = list(encoded.input_ids), list(encoded.labels)
    assert [number for number in ids if number in tokenizer.control_tokens.values()] == [1, 2] * len(messages)
    assert tokenizer.decode(ids) == "".join(s.text for s in CHATML.render(messages, False))
    assert [number for number in labels if number in tokenizer.control_tokens.values()] == [2] * (len(turns) // 2)
    assert all(label in (IGNORE, number) for number, label in zip(ids, labels, strict=True))
    for position, message in enumerate(messages):
        if message.role == "assistant":
            prompt = list(encoded_prompt(Encoder(tokenizer, CHATML), messages[:position]).input_ids)
            assert ids[: len(prompt)] == prompt
            answer = labels[len(prompt) :]
            assert tokenizer.decode(answer[: answer.index(2) + 1]) == f"{message.content}<|im_end|>"
