"""Tokens to text as it comes: stops, held-back text, split characters and finish reasons, with a scripted decoder."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from types import NoneType, SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from lmflow_core.contracts.decoder import BatchLimits, DecoderSpec, DecodeStep, DecodingRequest, TokenLogprob
from lmflow_core.contracts.examples import ImagePart, Message
from lmflow_core.contracts.generation import GeneratedAnswer
from lmflow_core.contracts.model import LanguageModel, ModelServices
from lmflow_core.contracts.settings import DecodingSettings
from lmflow_core.data.encoding import Encoder
from lmflow_core.errors import PromptTooLongError
from lmflow_core.generation.answers import Answer, all_stops, encoded_prompt, own_stops, stop_tokens
from lmflow_core.generation.context import answer_limit, context_limit, session_room
from lmflow_core.generation.in_turns import TurnsBatch
from lmflow_core.generation.many import GrowingBatch, generated_answers
from lmflow_core.templates import ChatTemplate
from lmflow_core.testing.letters import Pictures
from lmflow_core.testing.tiny import make_tokenizer
from lmflow_transformers.tokenizers import TransformersTokenizer

END = 2  # <|im_end|>


class Script:
    """Gives the steps it was given; writes down what it was asked and how many steps were taken."""

    def __init__(self, *steps: Sequence[int]) -> None:
        self.steps = steps
        self.taken = 0
        self.asked: DecodingRequest | None = None

    def prepare(self, model: LanguageModel, services: ModelServices) -> None:
        pass

    def decode(self, model: LanguageModel, request: DecodingRequest) -> Iterator[DecodeStep]:
        self.asked = request
        for step in self.steps:
            self.taken += 1
            yield DecodeStep(tuple(step))


@pytest.fixture(scope="module")
def tokenizer() -> TransformersTokenizer:
    return TransformersTokenizer(make_tokenizer())


def _bytes(tokenizer: TransformersTokenizer, text: str) -> list[int]:
    """Return one token per byte: byte-level tokens of one character stand for a byte each."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()
    ids: list[int] = tokenizer.inner.convert_tokens_to_ids([letters[byte] for byte in text.encode()])
    return ids


def _model(tokenizer: TransformersTokenizer, context: int | None = None) -> Any:
    return SimpleNamespace(tokenizer=tokenizer, context_length=context)


def _answer(tokenizer: TransformersTokenizer, script: Script, *stops: str, **asked: Any) -> Answer:
    request = DecodingRequest([5, 6], **{"max_new_tokens": 256, "stop_ids": stop_tokens(stops, tokenizer), **asked})
    return Answer(script, _model(tokenizer), request, stops)


def _written(
    tokenizer: TransformersTokenizer, steps: Sequence[Sequence[int]], *stops: str
) -> tuple[list[str], str, int]:
    """Return the pieces of an answer, why it ended, and how many tokens were sampled."""
    answer = _answer(tokenizer, Script(*steps), *stops)
    pieces = list(answer)
    assert answer.text == "".join(pieces)
    return pieces, answer.finish_reason, answer.tokens


def _letters(tokenizer: TransformersTokenizer, text: str) -> list[list[int]]:
    return [[number] for number in _bytes(tokenizer, text)]


def test_text_comes_token_by_token(tokenizer: TransformersTokenizer) -> None:
    steps = _letters(tokenizer, "two words")
    assert _written(tokenizer, steps) == (list("two words"), "length", 9)
    assert _written(tokenizer, []) == ([], "length", 0)


def test_a_stop_token_ends_the_answer_and_is_not_written(tokenizer: TransformersTokenizer) -> None:
    steps = [*_letters(tokenizer, "ab"), [END], *_letters(tokenizer, "cd")]
    assert _written(tokenizer, steps, "<|im_end|>") == (["a", "b"], "stop", 3)
    assert _written(tokenizer, [[END]], "<|im_end|>") == ([], "stop", 1)


def test_a_stop_token_within_a_step_of_several(tokenizer: TransformersTokenizer) -> None:
    a, b, c = _bytes(tokenizer, "abc")
    script = Script([a, b, END, c], [c])
    answer = _answer(tokenizer, script, "<|im_end|>").finish()
    assert (answer.text, answer.finish_reason, answer.tokens, script.taken) == ("ab", "stop", 3, 1)


def test_a_control_token_that_is_no_stop_is_written(tokenizer: TransformersTokenizer) -> None:
    steps = [*_letters(tokenizer, "a"), [END], *_letters(tokenizer, "b")]
    assert _written(tokenizer, steps) == (["a", "<|im_end|>", "b"], "length", 3)


def test_a_stop_text_across_tokens_is_held_back_and_cut(tokenizer: TransformersTokenizer) -> None:
    script = Script(*_letters(tokenizer, "yes\n\nUser: and so on"))
    answer = _answer(tokenizer, script, "\n\nUser:")
    assert list(answer) == ["y", "e", "s"]
    assert (answer.text, answer.finish_reason, answer.tokens) == ("yes", "stop", 10)
    assert script.taken == 10


def test_a_stop_text_may_be_longer_than_any_answer(tokenizer: TransformersTokenizer) -> None:
    steps = [[token] for token in tokenizer.inner.encode("aaa")]
    assert "".join(_written(tokenizer, steps, "a" * 1_000_000)[0]) == "aaa"


def test_a_stop_text_within_one_token(tokenizer: TransformersTokenizer) -> None:
    [france] = tokenizer.inner.convert_tokens_to_ids(["ĠFrance"])
    steps = [*_letters(tokenizer, "in"), [france], *_letters(tokenizer, "!")]
    assert _written(tokenizer, steps, "anc") == (["i", "n", " Fr"], "stop", 3)
    assert _written(tokenizer, steps, "n F") == (["i"], "stop", 3)


def test_text_that_only_looked_like_a_stop_is_written_in_the_end(tokenizer: TransformersTokenizer) -> None:
    steps = _letters(tokenizer, "a\n\nUs b")
    assert _written(tokenizer, steps, "\n\nUser:") == (["a", "\n\nUs ", "b"], "length", 7)
    assert _written(tokenizer, _letters(tokenizer, "a\n\nUs"), "\n\nUser:") == (["a", "\n\nUs"], "length", 5)
    held = [*_letters(tokenizer, "a\n"), [END]]
    assert _written(tokenizer, held, "\n\nUser:", "<|im_end|>") == (["a", "\n"], "stop", 3)


def test_the_first_stop_that_is_complete_cuts(tokenizer: TransformersTokenizer) -> None:
    assert _written(tokenizer, _letters(tokenizer, "xabcd"), "abcd", "bc") == (["x", "a"], "stop", 4)
    assert _written(tokenizer, _letters(tokenizer, "aab"), "ab") == (["a"], "stop", 3)
    assert _written(tokenizer, _letters(tokenizer, "###"), "#") == ([], "stop", 1)
    [dog] = tokenizer.inner.convert_tokens_to_ids(["Ġdog"])
    assert _written(tokenizer, [[dog]], "og", "d") == ([" "], "stop", 1)


@pytest.mark.parametrize("character", ["é", "€", "😀", "👍🏽"])
def test_a_character_waits_for_its_last_byte(tokenizer: TransformersTokenizer, character: str) -> None:
    steps = _letters(tokenizer, f"a{character}b")
    pieces, reason, tokens = _written(tokenizer, steps)
    assert pieces == ["a", *character, "b"]
    assert (reason, tokens) == ("length", len(character.encode()) + 2)


def test_a_character_that_never_ends_is_written_as_it_is(tokenizer: TransformersTokenizer) -> None:
    cut = _letters(tokenizer, "a😀")[:-1]
    assert _written(tokenizer, cut) == (["a", "\ufffd"], "length", 4)
    assert _written(tokenizer, [*cut, [END]], "<|im_end|>") == (["a", "\ufffd"], "stop", 5)
    assert _written(tokenizer, [*cut, *_letters(tokenizer, "bc")]) == (["a", "\ufffdb", "c"], "length", 6)


def test_a_stop_text_of_split_characters(tokenizer: TransformersTokenizer) -> None:
    assert _written(tokenizer, _letters(tokenizer, "a😀🛑b"), "🛑") == (["a", "😀"], "stop", 9)


def test_spaces_that_a_tokenizer_drops_at_the_start_of_a_text_stay_within_it() -> None:
    backend = Tokenizer(models.WordLevel({"▁one": 0, "▁two": 1, "s": 2, "▁": 3}, unk_token="s"))
    backend.decoder = decoders.Metaspace()
    spaced = TransformersTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert spaced.decode([1]) == "two"
    assert _written(spaced, [[0], [1], [2], [3], [1]]) == (["one", " two", "s", " ", " two"], "length", 5)


def test_what_the_decoder_is_asked(tokenizer: TransformersTokenizer) -> None:
    script = Script()
    answer = _answer(tokenizer, script, "<|im_end|>", "<|endoftext|>", "User:", max_new_tokens=7, seed=3)
    assert answer.prompt_tokens == 2
    assert (answer.finish().tokens_per_second, answer.text) == (0.0, "")
    assert script.asked == DecodingRequest([5, 6], 7, frozenset({0, 2}), 3)


_stops = st.lists(st.text("ab\n€", min_size=1, max_size=3), max_size=3)


@settings(max_examples=300, deadline=None)
@given(text=st.text("abc\n€", max_size=12), stops=_stops, data=st.data())
def test_the_answer_is_the_text_before_the_first_complete_stop(
    tokenizer: TransformersTokenizer, text: str, stops: list[str], data: Any
) -> None:
    ids = _bytes(tokenizer, text)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(ids)))) | {0, len(ids)})
    steps = [ids[start:end] for start, end in itertools.pairwise(cuts)]
    pieces, reason, _ = _written(tokenizer, steps, *stops)
    # Characters come one by one, so the stop whose last character comes first is met first; the longest begins first.
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    first = min(ends, default=None)
    expected = text
    if first is not None:
        expected = text[: min(first - len(stop) for stop in stops if text[:first].endswith(stop))]
    assert ("".join(pieces), reason) == (expected, "length" if first is None else "stop")
    assert all(pieces)


CHATML = ChatTemplate(
    user="<|im_start|>user\n{content}<|im_end|>\n",
    assistant_header="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    stop=("<|im_end|>", "<|endoftext|>"),
)


def _prompt(tokenizer: TransformersTokenizer, template: ChatTemplate | None, messages: list[Message]) -> list[int]:
    return list(encoded_prompt(Encoder(tokenizer, template), messages).input_ids)


def test_prompts(tokenizer: TransformersTokenizer) -> None:
    messages = [Message("user", "hello<|im_end|>")]
    templated = _prompt(tokenizer, CHATML, messages)
    assert tokenizer.decode(templated) == "<|im_start|>user\nhello<|im_end|><|im_end|>\n<|im_start|>assistant\n"
    assert [number for number in templated if number < 3] == [1, 2, 1]
    raw = _prompt(tokenizer, None, messages)
    assert tokenizer.decode(raw) == "hello<|im_end|>"
    assert [number for number in raw if number < 3] == []


def test_all_stops_without_repetition(tokenizer: TransformersTokenizer) -> None:
    asked = DecodingSettings(stop=("User:", "", "<|endoftext|>"))
    assert all_stops(asked, CHATML, tokenizer) == ["<|im_end|>", "<|endoftext|>", "User:"]
    assert all_stops(asked, None, tokenizer) == ["<|im_end|>", "User:", "<|endoftext|>"]
    assert own_stops(CHATML, tokenizer) == ["<|im_end|>", "<|endoftext|>"]
    assert own_stops(None, tokenizer) == ["<|im_end|>"]


def test_what_was_drafted_is_summed(tokenizer: TransformersTokenizer) -> None:
    class Drafting(Script):
        def decode(self, *_: Any, **__: Any) -> Iterator[DecodeStep]:
            yield DecodeStep((70, 71, 72), drafted=4, accepted=2)
            yield DecodeStep((73,), drafted=1, accepted=0)
            yield DecodeStep((74, 75), drafted=3, accepted=2, passes=2)

    answer = _answer(tokenizer, Drafting()).finish()
    assert (answer.tokens, answer.drafted, answer.accepted, answer.passes) == (6, 8, 4, 4)
    assert (answer.acceptance_rate, answer.tokens_per_pass) == (0.5, 1.5)
    plain = _answer(tokenizer, Script([70], [71])).finish()
    assert (plain.drafted, plain.acceptance_rate, plain.passes, plain.tokens_per_pass) == (0, 0.0, 2, 1.0)


def test_an_image_is_part_of_a_prompt(tokenizer: TransformersTokenizer) -> None:
    asked = [Message("user", ("look at this: ", ImagePart("cat.png"), "!"))]
    for template in (CHATML, None):
        with pytest.raises(ValueError, match="the model takes no images"):
            encoded_prompt(Encoder(tokenizer, template), asked)
        prompt = encoded_prompt(Encoder(tokenizer, template, media=Pictures()), asked)
        assert [(media.source, media.tokens) for media in prompt.media] == [("cat.png", 7)]
        start = prompt.media[0].start
        assert tokenizer.decode(prompt.input_ids[:start]).endswith("look at this: ")
        assert tokenizer.decode(prompt.input_ids[start + 7 :]).startswith("!")
    parts = _prompt(tokenizer, CHATML, [Message("user", ("one ", "two"))])
    assert parts == _prompt(tokenizer, CHATML, [Message("user", "one two")])


def test_what_is_taken_step_by_step_is_what_is_iterated_over(tokenizer: TransformersTokenizer) -> None:
    a, b, c = _bytes(tokenizer, "abc")
    logprobs = tuple(TokenLogprob(-number) for number in (1.0, 2.0, 3.0))
    steps = [DecodeStep((a, b), drafted=3, accepted=1, logprobs=logprobs[:2]), DecodeStep((c,), logprobs=logprobs[2:])]

    class Given(Script):
        def decode(self, model: LanguageModel, request: DecodingRequest) -> Iterator[DecodeStep]:
            yield from steps

    alone = _answer(tokenizer, Given(), "xyz").finish()
    fed = _answer(tokenizer, Script(), "xyz")
    fed.begin()
    pieces = [*map(fed.take, steps), fed.close()]
    assert (pieces, fed.text) == (["ab", "c", ""], alone.text)
    assert fed.sampled == alone.sampled
    assert [token.logprob for token in fed.sampled] == [*logprobs]
    for name in ("tokens", "ids", "drafted", "accepted", "passes", "finish_reason"):
        assert getattr(fed, name) == getattr(alone, name), name
    assert fed.result() == GeneratedAnswer((a, b, c), "abc", "length")


def test_nothing_is_taken_behind_the_end(tokenizer: TransformersTokenizer) -> None:
    a, b = _bytes(tokenizer, "ab")
    answer = _answer(tokenizer, Script(), "<|im_end|>")
    answer.begin()
    assert [answer.take(DecodeStep((token,), drafted=1)) for token in (a, END, b)] == ["a", "", ""]
    assert (answer.close(), answer.text, answer.tokens, answer.passes, answer.drafted) == ("", "a", 2, 2, 2)
    cancelled = _answer(tokenizer, Script([a], [b]))
    cancelled.cancel()
    assert (cancelled.finish().text, cancelled.finish_reason, cancelled.tokens) == ("", "cancelled", 0)


class Many(Script):
    """One script for each request, chosen by its seed; a token of every answer in turn, as a batch gives them."""

    def __init__(self, scripts: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.scripts = scripts
        self.batches = 0

    def decode(self, model: LanguageModel, request: DecodingRequest) -> Iterator[DecodeStep]:
        for token in self.scripts[request.seed][: request.max_new_tokens]:
            self.taken += 1
            yield DecodeStep((token,))
            if token in request.stop_ids:
                return

    def open_batch(self, model: LanguageModel, limits: BatchLimits) -> TurnsBatch:
        self.batches += 1
        return TurnsBatch(model, limits)


def _spec(**changes: bool) -> DecoderSpec:
    return DecoderSpec(name="many", target="a:b", summary="x", **changes)


def test_answers_of_a_batch_are_those_alone(tokenizer: TransformersTokenizer) -> None:
    texts = ["short", "a longer one", "a😀 stop: here and on", ""]
    scripts = [[*_bytes(tokenizer, text), END, *_bytes(tokenizer, "behind")] for text in texts]
    asked = [
        DecodingRequest([5, 6], 30, frozenset({END}), 0),
        DecodingRequest([5], 4, frozenset({END}), 1),
        DecodingRequest([5, 6, 7], 30, frozenset(), 2),
        DecodingRequest([5, 6], 30, frozenset({END}), 3),
    ]
    stops = ["stop:"]
    expected = [Answer(Many(scripts), _model(tokenizer), one, stops).finish().result() for one in asked]
    assert [(one.text, one.finish_reason) for one in expected] == [
        ("short", "stop"),
        ("a lo", "length"),
        ("a😀 ", "stop"),
        ("", "stop"),
    ]
    for batches in (True, False):
        decoder = Many(scripts)
        answers = [Answer(decoder, _model(tokenizer), one, stops) for one in asked]
        for most in (1, 3, 9):
            batch = GrowingBatch(_model(tokenizer), decoder, _spec(batches=batches), BatchLimits(answers=most))
            written = list(batch.write(Answer(decoder, _model(tokenizer), one, stops) for one in asked))
            assert [answer.request for answer in written] == [answer.request for answer in answers]
            assert [cast(Answer, answer).result() for answer in written] == expected
            assert len(batch) == 0
        assert decoder.batches == (3 if batches else 0)
        told = generated_answers(decoder, _spec(batches=batches), _model(tokenizer), asked, stops=stops)
        assert told == expected


def test_a_batch_ends_when_every_answer_has_met_a_stop_text(tokenizer: TransformersTokenizer) -> None:
    decoder = Many([_bytes(tokenizer, "one. two"), _bytes(tokenizer, "1. 2")])
    asked = [DecodingRequest([5], 30, seed=seed) for seed in (0, 1)]
    told = generated_answers(decoder, _spec(batches=True), _model(tokenizer), asked, stops=["."])
    assert [(one.text, one.finish_reason, len(one.ids)) for one in told] == [("one", "stop", 4), ("1", "stop", 2)]
    assert decoder.taken < 10


def _batch(tokenizer: TransformersTokenizer, decoder: Many, answers: int) -> GrowingBatch:
    return GrowingBatch(_model(tokenizer), decoder, _spec(batches=True), BatchLimits(answers=answers))


def test_answers_join_leave_and_wait(tokenizer: TransformersTokenizer) -> None:
    decoder = Many([_bytes(tokenizer, text) for text in ("abcdef", "uvwxyz", "123")])
    first, second, third = (Answer(decoder, _model(tokenizer), DecodingRequest([5], 9, seed=seed)) for seed in range(3))
    batch = _batch(tokenizer, decoder, 2)
    for answer in (first, second, third):
        batch.check(answer)
        batch.add(answer)
    assert [(news.answer, news.text, news.ended) for news in batch.step()] == [
        (first, "a", False),
        (second, "u", False),
    ]
    second.cancel()
    told = [(news.answer, news.text, news.ended) for news in batch.step()]
    assert told == [(second, "", True), (first, "b", False), (third, "1", False)]
    assert (second.finish_reason, second.text) == ("cancelled", "u")
    third.cancel()
    first.cancel()
    assert {(news.answer, news.ended) for news in batch.step()} == {(first, True), (third, True)}
    assert len(batch) == 0
    assert batch.step() == []


def test_an_answer_that_fails_ends_alone_and_a_list_of_answers_with_it(tokenizer: TransformersTokenizer) -> None:
    class Failing(Many):
        def decode(self, model: LanguageModel, request: DecodingRequest) -> Iterator[DecodeStep]:
            yield from super().decode(model, request)
            if request.seed:
                raise ZeroDivisionError

    decoder = Failing([_bytes(tokenizer, "abc"), _bytes(tokenizer, "x")])
    answers = [Answer(decoder, _model(tokenizer), DecodingRequest([5], 9, seed=seed)) for seed in (0, 1)]
    batch = _batch(tokenizer, decoder, 2)
    for answer in answers:
        batch.add(answer)
    told = [news for _ in range(5) for news in batch.step() if news.ended]
    assert [(news.answer, type(news.error)) for news in told] == [
        (answers[1], ZeroDivisionError),
        (answers[0], NoneType),
    ]
    assert [answer.text for answer in answers] == ["abc", "x"]
    requests = [DecodingRequest([5], 9, seed=seed) for seed in (0, 1)]
    with pytest.raises(ZeroDivisionError):
        generated_answers(decoder, _spec(batches=True), _model(tokenizer), requests)


def test_answers_are_asked_for_when_there_is_room(tokenizer: TransformersTokenizer) -> None:
    decoder = Many([_bytes(tokenizer, "abcdefghij"), _bytes(tokenizer, "x")])
    asked = []

    def answers() -> Iterator[Answer]:
        for number in range(100):
            asked.append(number)
            yield Answer(decoder, _model(tokenizer), DecodingRequest([5], 9, seed=int(number > 0)))

    written = _batch(tokenizer, decoder, 2).write(answers())
    assert next(written).text == "abcdefghi"
    assert len(asked) < 2 + 10
    assert [answer.text for answer in written] == ["x"] * 99


def test_limits_are_checked() -> None:
    for wrong in ({"answers": 0}, {"cache_tokens": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            BatchLimits(**wrong)


def test_stops_that_are_control_tokens_end_the_decoder_too(tokenizer: TransformersTokenizer) -> None:
    decoder = Many([[*_bytes(tokenizer, "a"), END, *_bytes(tokenizer, "b")]])
    (told,) = generated_answers(
        decoder, _spec(), _model(tokenizer), [DecodingRequest([5], 9)], stops=own_stops(CHATML, tokenizer)
    )
    assert (told.text, told.finish_reason, decoder.taken) == ("a", "stop", 2)


def test_one_rule_tells_whether_a_prompt_fits(tokenizer: TransformersTokenizer) -> None:
    assert [answer_limit(10, prompt, 4) for prompt in (0, 6, 7, 9)] == [4, 4, 3, 1]
    assert answer_limit(None, 1000, 4) == 4
    for prompt in (10, 11):
        with pytest.raises(PromptTooLongError, match=f"has {prompt} tokens and the context of the model holds 10"):
            answer_limit(10, prompt, 4)
    assert [session_room(10, most) for most in (3, 5, 8)] == [3, 5, 5]
    assert session_room(None, 8) == 8
    model = _model(tokenizer, context=4)
    assert context_limit(model, _spec()) == 4
    assert context_limit(model, _spec(unbounded=True)) is None
    decoder = Many([_bytes(tokenizer, "abcdef")])
    (cut,) = generated_answers(decoder, _spec(), model, [DecodingRequest([5, 6], 5)])
    assert (cut.text, cut.finish_reason) == ("ab", "length")
    (whole,) = generated_answers(decoder, _spec(unbounded=True), model, [DecodingRequest([5, 6], 5)])
    assert (whole.text, whole.finish_reason) == ("abcde", "length")
    with pytest.raises(PromptTooLongError):
        generated_answers(decoder, _spec(), model, [DecodingRequest([5, 6, 7, 8], 5)])
