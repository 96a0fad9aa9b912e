"""Text apart from control tokens, and ids equal to those of the whole text, for every build of tokenizer."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lmflow_core.api import ChatTemplate, ControlTextError, Conversation, Message, ModelError, Text, ToolCall
from lmflow_core.data.encoding import Encoder
from lmflow_core.testing.tiny import make_tokenizer
from lmflow_transformers.tokenizers import TransformersTokenizer

SPECIAL = ("<unk>", "<s>", "</s>")
PIECES = [
    *SPECIAL,
    *(f"<0x{number:02X}>" for number in range(256)),
    "▁",
    *(chr(code) for code in range(33, 127)),
    *("\n", "\n\n", "▁a", "▁[", "[/", "▁ab", "ab"),
]
MERGES = [("\n", "\n"), ("a", "b"), ("▁", "ab"), ("▁", "a"), ("▁", "["), ("[", "/")]
SENTENCE_PIECE = ("legacy", "first", "always", "never")


def _wrap_backend(backend: Tokenizer, **tokens: str) -> TransformersTokenizer:
    return TransformersTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, **tokens))


def sentence_piece(kind: str) -> TransformersTokenizer:
    """Build one as Llama's converters do: ``legacy`` puts the space before each piece, the others are Metaspace."""
    backend = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in enumerate(PIECES)},
            merges=MERGES,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if kind == "legacy":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return _wrap_backend(backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def byte_level(**options: bool) -> TransformersTokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(**options)
    backend.decoder = decoders.ByteLevel()
    return _wrap_backend(backend, bos_token="<s>", eos_token="</s>")


def _tokens(tokenizer: TransformersTokenizer, text: str, continues: bool = False) -> list[str]:
    [ids] = tokenizer.encode([text], [continues])
    tokens: list[str] = tokenizer.inner.convert_ids_to_tokens(ids)
    return tokens


LLAMA2 = ChatTemplate(
    system="<<SYS>>\n{content}\n<</SYS>>\n\n",
    system_in_user=True,
    user="<s>[INST] {content} [/INST]",
    assistant=" {content} </s>",
    stop=("</s>",),
)
ZEPHYR = ChatTemplate(
    user="<|user|>\n{content}</s>\n",
    assistant_header="<|assistant|>\n",
    assistant="{content}</s>",
    assistant_end="\n",
    stop=("</s>",),
)
CONVERSATION = (
    Message("user", "ab a"),
    Message("assistant", "a b"),
    Message("user", "[/a\n\nb]"),
    Message("assistant", "ab"),
)
SPACED = {"legacy": True, "first": False, "always": True, "never": True}


@pytest.mark.parametrize("kind", SENTENCE_PIECE)
@pytest.mark.parametrize("system", [(), (Message("system", "a ab"),)], ids=["no system", "system"])
def test_a_conversations_ids_are_those_of_its_whole_text(kind: str, system: tuple[Message, ...]) -> None:
    tokenizer = sentence_piece(kind)
    messages = (*system, *CONVERSATION)
    [encoded] = Encoder(tokenizer, LLAMA2).encode([Conversation(messages)])[0].sequences
    text = "".join(segment.text for segment in LLAMA2.render(messages, False))
    assert list(encoded.input_ids) == tokenizer.inner(text, add_special_tokens=False).input_ids
    assert tokenizer.spaces_after_control == SPACED[kind]


@pytest.mark.parametrize("kind", SENTENCE_PIECE)
def test_a_conversation_that_opens_with_text(kind: str) -> None:
    tokenizer = sentence_piece(kind)
    [encoded] = Encoder(tokenizer, ZEPHYR).encode([Conversation(CONVERSATION)])[0].sequences
    text = "".join(segment.text for segment in ZEPHYR.render(CONVERSATION, False))
    assert list(encoded.input_ids) == tokenizer.inner(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("kind", SENTENCE_PIECE)
def test_a_plain_texts_ids_are_those_of_the_tokenizer(kind: str) -> None:
    tokenizer = sentence_piece(kind)
    assert tokenizer.bos == "<s>"
    [encoded] = Encoder(tokenizer, None).encode([Text("ab [a")])[0].sequences
    assert list(encoded.input_ids) == [*tokenizer.inner("ab [a").input_ids, 2]


FIRST = {"legacy": "▁ab", "first": "▁ab", "always": "▁ab", "never": "ab"}


@pytest.mark.parametrize("kind", SENTENCE_PIECE)
def test_no_space_is_made_up_before_text_that_goes_on(kind: str) -> None:
    tokenizer = sentence_piece(kind)
    assert _tokens(tokenizer, "ab a") == [FIRST[kind], "▁a"]
    assert _tokens(tokenizer, "ab a", continues=True) == ["ab", "▁a"]
    assert _tokens(tokenizer, " ab", continues=True) == ["▁ab"]
    assert _tokens(tokenizer, "\nab", continues=True) == ["\n", "ab"]
    assert tokenizer.encode(["ab", "ab", ""], [True, False, True]) == [
        tokenizer.encode(["ab"], [True])[0],
        tokenizer.encode(["ab"], [False])[0],
        [],
    ]


def test_a_byte_level_tokenizer_may_make_up_a_space_too() -> None:
    spaced, plain = byte_level(add_prefix_space=True), byte_level(add_prefix_space=False)
    assert _tokens(spaced, "ab") == ["Ġ", "a", "b"]
    assert _tokens(spaced, "ab", continues=True) == ["a", "b"]
    assert _tokens(plain, "ab") == _tokens(plain, "ab", continues=True) == ["a", "b"]
    for tokenizer in (spaced, plain):
        [encoded] = Encoder(tokenizer, LLAMA2).encode([Conversation(CONVERSATION)])[0].sequences
        text = "".join(segment.text for segment in LLAMA2.render(CONVERSATION, False))
        assert list(encoded.input_ids) == tokenizer.inner(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("kind", SENTENCE_PIECE)
@pytest.mark.parametrize("control", SPECIAL)
def test_a_special_token_in_a_text_becomes_its_characters(kind: str, control: str) -> None:
    tokenizer = sentence_piece(kind)
    start = [] if kind == "never" else ["▁"]
    assert _tokens(tokenizer, control) == [*start, *control]
    assert _tokens(tokenizer, f"b{control}ab", continues=True) == ["b", *control, "ab"]


def test_an_ordinary_added_token_in_a_text_is_broken_up() -> None:
    inner = sentence_piece("legacy").inner
    raw, normalized = AddedToken("<tool>", special=False, normalized=False), AddedToken("<more>", special=False)
    inner.add_tokens([raw, normalized, AddedToken("=-=", special=False, normalized=False)])
    tokenizer = TransformersTokenizer(inner)
    assert set(inner.get_added_vocab().values()) - {0, 1, 2} <= set(inner("a<tool> <more>=-=").input_ids)
    assert _tokens(tokenizer, "a<tool> <more>=-=") == ["▁a", *"<tool>", "▁", *"<more>=-="]
    assert _tokens(tokenizer, "<more>") == ["▁", *"<more>"]
    assert _tokens(tokenizer, "<tool><tool>", continues=True) == [*"<tool><tool>"]
    assert _tokens(tokenizer, "=-=-=", continues=True) == [*"=-=-="]
    template = ChatTemplate(user="<tool>{content}", assistant="{content}</s>", stop=("</s>",))
    conversation = Conversation((Message("user", "<tool>"), Message("assistant", "=-=")))
    [encoded] = Encoder(tokenizer, template).encode([conversation])[0].sequences
    assert inner.convert_ids_to_tokens(encoded.input_ids) == ["<tool>", "▁", *"<tool>", *"=-=", "</s>"]


def test_white_space_and_single_characters_that_were_added_are_text() -> None:
    inner = make_tokenizer()
    inner.add_tokens(
        [AddedToken("    ", special=False), AddedToken("\n\n", special=False), AddedToken("§", special=False)]
    )
    inner.add_tokens([AddedToken("▁▁", special=False), AddedToken("<x>", special=False)])
    tokenizer = TransformersTokenizer(inner)
    assert set(tokenizer.control_tokens) == {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<x>"}
    text = "a    b\n\n§▁▁c"
    assert _tokens(tokenizer, text) == inner.tokenize(text)
    assert {"    ", "\n\n", "§", "▁▁"} <= set(inner.tokenize(text))


def test_a_control_token_that_is_a_piece_of_the_vocabulary_is_broken_up() -> None:
    letters: list[tuple[str, float]] = [(letter, -10.0) for letter in "<>/s▁ab"]
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *letters], 0, False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = _wrap_backend(backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    assert _tokens(tokenizer, "a</s>b <s>") == ["▁", "a", *"</s>", "b", "▁", *"<s>"]


_BARE = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()])
READ_AS = {
    "full width": (normalizers.NFKC(), "＜｜ｅｎｄ｜＞"),
    "capitals": (normalizers.Lowercase(), "<|END|>"),
    "a long s": (normalizers.NFKC(), "<|endſ|>"),
    "an accent": (_BARE, "<|énd|>"),
    "nothing between": (normalizers.Replace("\u200b", ""), "<|en\u200bd|>"),
}


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("case", READ_AS)
def test_what_a_normalizer_makes_a_control_token_of_stays_text(case: str, special: bool) -> None:
    normalizer, written = READ_AS[case]
    backend = Tokenizer(
        models.Unigram([("<unk>", 0.0), ("</s>", 0.0), *((letter, -9.0) for letter in "▁<|ends>/hi")], 0, False)
    )
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    token = "<|ends|>" if "ſ" in written else "<|end|>"
    backend.add_tokens([AddedToken(token, special=special, normalized=True)])
    tokenizer = _wrap_backend(backend, unk_token="<unk>", eos_token="</s>")
    control = tokenizer.control_tokens[token]
    for continues in (False, True):
        found = _tokens(tokenizer, f"hi {written} ＜/S＞ hi?", continues)
        assert not {token, "</s>"} & set(found)
        assert found[-3:] == ["h", "i", "<unk>"]  # what is unknown is no control token here
        assert "".join(found).count(token) == 1
    encoder = Encoder(tokenizer, ChatTemplate(user="{content}", assistant="{content}" + token, stop=(token,)))
    chat = Conversation((Message("user", written), Message("assistant", written)))
    ids = list(encoder.encode([chat])[0].sequences[0].input_ids)
    assert [number for number in ids if number in (1, control)] == [control]


def test_a_character_that_a_normalizer_makes_a_control_token_of_is_refused() -> None:
    inner = byte_level().inner
    inner.backend_tokenizer.normalizer = normalizers.Replace("§", "<tool>")
    inner.add_tokens([AddedToken("<tool>", special=False, normalized=True)])
    tokenizer = TransformersTokenizer(inner)
    assert tokenizer.decode(tokenizer.encode(["tool"], [True])[0]) == "tool"
    with pytest.raises(
        ControlTextError, match=r"the character '§' \(U\+00A7\), .* the control token '<tool>': leave it out$"
    ):
        tokenizer.encode(["see § 3"], [True])


def test_a_token_that_ends_texts_is_never_what_is_unknown() -> None:
    backend = Tokenizer(models.WordLevel({"</s>": 0, "a": 1}, unk_token="</s>"))
    tokenizer = _wrap_backend(backend, unk_token="</s>", eos_token="</s>")
    assert tokenizer.encode(["a"], [True]) == [[1]]
    with pytest.raises(ControlTextError, match="the character 'b'"):
        tokenizer.encode(["b"], [True])


def test_the_tokenizer_itself_is_left_as_it_was() -> None:
    inner = make_tokenizer()
    inner.backend_tokenizer.enable_truncation(3)
    inner.backend_tokenizer.enable_padding(length=40)
    tokenizer = TransformersTokenizer(inner)
    before = tokenizer.fingerprint
    assert len(_tokens(tokenizer, "hello world hello world")) > 3
    assert _tokens(tokenizer, "<|im_end|>")[0] == "<"
    assert inner.tokenize("<|im_end|>") == ["<|im_end|>"]
    assert TransformersTokenizer(inner).fingerprint == before


def test_the_fingerprint_covers_what_changes_ids() -> None:
    plain = make_tokenizer()
    assert TransformersTokenizer(plain).fingerprint == TransformersTokenizer(make_tokenizer()).fingerprint
    plain.add_tokens(["<x>"])
    fingerprints = {
        TransformersTokenizer(plain).fingerprint,
        TransformersTokenizer(make_tokenizer()).fingerprint,
        TransformersTokenizer(make_tokenizer(380)).fingerprint,
        *(sentence_piece(kind).fingerprint for kind in SENTENCE_PIECE),
    }
    assert len(fingerprints) == 3 + len(SENTENCE_PIECE)


def test_opening_and_end_token() -> None:
    tiny = TransformersTokenizer(make_tokenizer())
    # It has one, and puts it before no text.
    assert tiny.inner.bos_token == "<|im_start|>"
    assert (tiny.bos, tiny.eos) == (None, "<|im_end|>")
    bare = TransformersTokenizer(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())))
    assert (bare.bos, bare.eos, bare.control_tokens) == (None, None, {})
    assert bare.spaces_after_control


def test_decoding_keeps_control_tokens() -> None:
    tokenizer = sentence_piece("legacy")
    assert tokenizer.decode([1, *tokenizer.encode(["ab"], [True])[0], 2]) == "<s>ab</s>"
    assert tokenizer.decode([]) == ""


def test_a_tokenizer_without_a_fast_backend_is_refused() -> None:
    class Slow:
        pass

    with pytest.raises(ModelError, match=r"^Slow has no fast backend, which LMFlow needs$"):
        TransformersTokenizer(Slow())


def test_rendering_by_the_tokenizers_own_template() -> None:
    tokenizer = TransformersTokenizer(make_tokenizer())
    assert (
        tokenizer.render_chat((Message("user", "a"),), True) == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.render_chat((Message("user", "a"),), False) == "<|im_start|>user\na<|im_end|>\n"
    tokenizer.inner.chat_template = "{{ raise_exception('not this') }}"
    assert tokenizer.render_chat((Message("user", "a"),), True) is None
    tokenizer.inner.chat_template = None
    assert tokenizer.render_chat((Message("user", "a"),), True) is None


PHI3 = ChatTemplate(
    system="<|system|>\n{content}<|end|>\n",
    user="<|user|>\n{content}<|end|>\n",
    assistant_header="<|assistant|>\n",
    assistant="{content}<|end|>",
    assistant_end="\n",
    stop=("<|end|>",),
)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("build", ["legacy", "first", "byte level", "tiny"])
def test_marks_that_take_the_white_space_beside_them(build: str, before: bool) -> None:
    """As Phi 3's do: the ids are those of the whole text."""
    makers = {"byte level": lambda: byte_level(add_prefix_space=False).inner, "tiny": make_tokenizer}
    inner = makers[build]() if build in makers else sentence_piece(build).inner
    marks = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
    inner.add_tokens([AddedToken(mark, rstrip=True, lstrip=before, normalized=False, special=True) for mark in marks])
    tokenizer = TransformersTokenizer(inner)
    assert tokenizer.swallows_space == dict.fromkeys(marks, (before, True))
    messages = (Message("system", "a "), Message("user", " \n ab a\n"), Message("assistant", " b "))
    [encoded] = Encoder(tokenizer, PHI3).encode([Conversation(messages)])[0].sequences
    text = "".join(segment.text for segment in PHI3.render(messages, False))
    assert list(encoded.input_ids) == inner(text, add_special_tokens=False).input_ids


def test_the_opening_token_of_templates_needs_not_open_plain_texts() -> None:
    tiny = TransformersTokenizer(make_tokenizer())
    assert (tiny.bos, tiny.bos_token) == (None, "<|im_start|>")
    assert sentence_piece("legacy").bos_token == "<s>"


CALLS = (
    Message("user", "a"),
    Message("assistant", "", "r", tool_calls=(ToolCall("f", {"x": 1}), ToolCall("g", {}))),
    Message("tool", "t"),
    Message("tool", "u"),
)


def test_calls_reasoning_and_the_date_reach_the_tokenizers_own_template() -> None:
    tokenizer = TransformersTokenizer(make_tokenizer())
    jinja = "{{ strftime_now('%d %B %Y, %b, %Y-%m-%d') }} {{ tools|tojson }} {{ messages|tojson }}"
    text = tokenizer.render_chat(CALLS, True, ({"type": "function"},), jinja)
    assert text is not None
    assert text.startswith('26 July 2024, Jul, 2024-07-26 [{"type": "function"}] ')
    turns = json.loads(text.split("] ", 1)[1])
    assert [call["id"] for call in turns[1]["tool_calls"]] == ["000000001", "000000002"]
    assert turns[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}
    assert turns[1]["reasoning_content"] == "r"
    assert [turn.get("tool_call_id") for turn in turns] == [None, None, "000000001", "000000002"]
    assert tokenizer.inner.chat_template == tokenizer.chat_template


def test_of_several_own_templates_the_default_one() -> None:
    tokenizer = TransformersTokenizer(make_tokenizer())
    tokenizer.inner.chat_template = {"default": "{{ messages[0].content }}", "tool_use": "no"}
    assert tokenizer.render_chat((Message("user", "a"),), True) == "a"


def _with_tools(tokenizer: TransformersTokenizer) -> TransformersTokenizer:
    tokenizer.inner.add_tokens([AddedToken("<tool>", special=False), AddedToken("=-=", special=False)])
    return TransformersTokenizer(tokenizer.inner)


BUILDS: dict[str, TransformersTokenizer] = {
    **{kind: _with_tools(sentence_piece(kind)) for kind in SENTENCE_PIECE},
    "byte level": _with_tools(byte_level(add_prefix_space=False)),
    "byte level, spaced": _with_tools(byte_level(add_prefix_space=True)),
    "tiny": _with_tools(TransformersTokenizer(make_tokenizer())),
}
ROUND_TRIPS = {
    ("legacy", False),
    ("byte level", False),
    ("byte level", True),
    ("byte level, spaced", True),
    ("tiny", False),
    ("tiny", True),
}
_pieces = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=4)
_sprinkled = st.lists(
    _pieces | st.sampled_from([*SPECIAL, "<tool>", "=-=", "-=", "<|im_end|>", "<|im_", "<", "</"]), max_size=6
).map("".join)


@settings(max_examples=200, deadline=None)
@given(build=st.sampled_from(sorted(BUILDS)), texts=st.lists(_sprinkled, max_size=3), continues=st.booleans())
def test_no_text_gives_a_control_token_and_text_comes_back(build: str, texts: list[str], continues: bool) -> None:
    tokenizer = BUILDS[build]
    controls: set[int] = set(tokenizer.control_tokens.values())
    encoded: list[list[int]] = tokenizer.encode(texts, [continues] * len(texts))
    assert not controls & {number for ids in encoded for number in ids}
    for text, ids in zip(texts, encoded, strict=True):
        # The others drop a leading space or make one up, by their own design.
        if (build, continues) in ROUND_TRIPS:
            assert tokenizer.decode(ids) == text


def test_text_of_many_threads_never_becomes_a_control_token() -> None:
    tokenizer = TransformersTokenizer(make_tokenizer())
    control = set(tokenizer.control_tokens.values())
    text = "hi <|im_end|> there " * 50
    expected = tokenizer.encode([text], [False])

    def encoded_alike(_: int) -> bool:
        return all(tokenizer.encode([text], [False]) == expected for _ in range(40))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(encoded_alike, range(8)))
    finally:
        sys.setswitchinterval(before)
    assert control.isdisjoint(expected[0])
