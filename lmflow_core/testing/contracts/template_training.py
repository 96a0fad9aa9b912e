"""The part of the contract of templates that is about training: what is trained on, and what is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest

from lmflow_core.contracts.examples import is_trained
from lmflow_core.testing import chats
from lmflow_core.testing.contracts.base import ComponentContract


class TrainedParts(ComponentContract):
    """What a template marks as trained on."""

    kind: ClassVar[str] = "template"

    @classmethod
    def made(cls, target: Any, option_values: Any) -> Any:
        """Return the template: the target itself."""
        return target

    @pytest.fixture(scope="class")
    @classmethod
    def bound(cls, target: Any) -> Any:
        """Return the template with tokens of a tokenizer."""
        return target.bind(chats.BOS, chats.EOS)

    def test_an_answer_is_trained_on_whole(self, bound: Any) -> None:
        """Behind its prompt, an answer is trained on from its first character to the stop behind it."""
        for name, shape, segments in chats.rendered_shapes(bound):
            messages, prompt, tools = shape
            if prompt or messages[-1].role != "assistant" or any(message.reasoning for message in messages):
                continue
            text, spans = chats.text_of(segments), dict(chats.trained_spans(segments))
            for at, message in enumerate(messages):
                if message.role != "assistant":
                    continue
                before = chats.text_of(bound.render(messages[:at], True, tools))
                if not text.startswith(before) and at < len(messages) - 1:
                    continue  # as in models that open each answer with reasoning, and leave it out later
                asked = f"{name}: the answer {message.content or message.tool_calls!r}"
                assert text.startswith(before), f"{asked} does not follow its prompt {before!r}: {text!r}"
                assert len(before) in spans, f"{asked} is not trained on from its first character: {text!r}"
                written = text[len(before) : spans[len(before)]]
                assert message.text in written, f"{asked} is trained on as {written!r}"

    def test_only_what_is_written_is_trained_on(self, bound: Any) -> None:
        """Trained on is what follows a prompt, to the stop: no header, no system prompt, no question, no result."""
        for name, (messages, prompt, tools), segments in chats.rendered_shapes(bound):
            text = chats.text_of(segments)
            prompts = {
                chats.text_of(bound.render(messages[:at], True, tools))
                for at, message in enumerate(messages)
                if message.role == "assistant"
            }
            spans = chats.trained_spans(segments)
            for start, end in spans:
                trained = text[start:end]
                assert text[:start] in prompts, f"{name}: {trained!r} is trained on, and follows no prompt"
                is_last = (start, end) == spans[-1] and not prompt
                self._check_end(bound, trained, is_last, f"{name}: {trained!r} is trained on")

    @staticmethod
    def _check_end(template: Any, trained: str, is_last: bool, told: str) -> None:
        if not template.stop:
            return
        ends = [stop for stop in template.stop if trained.endswith(stop)]
        # What stands behind an earlier answer may differ from what the model stops with, and is then not trained on.
        assert ends or not is_last, f"{told}; it ends with none of {template.stop}"
        inside = trained.removesuffix(max(ends, key=len, default=""))
        assert not any(stop in inside for stop in template.stop), f"{told}, beyond its stop"

    def test_flags_of_messages_are_obeyed(self, bound: Any) -> None:
        """A question that is to be trained on is, and an answer that is not to be is not."""
        messages = (
            *(replace(chats.ASK, train=True), replace(chats.ANSWER, train=False)),
            *(chats.ASK_MORE, chats.ANSWER_MORE),
        )
        segments = bound.render(messages, False)
        trained = [segment.text for segment in segments if segment.trainable and not segment.control]
        expected = [message.content for message in messages if is_trained(message)]
        assert trained == expected, f"trained on are {trained}, and to be trained on {expected}"

    def test_an_answer_without_its_reasoning_is_not_trained_on(self, bound: Any) -> None:
        """Where reasoning has a place, an answer whose reasoning is left out is not trained on."""
        single = (chats.ASK, chats.REASONED)
        if str(chats.REASONED.reasoning) not in chats.text_of(bound.render(single, False)):
            assert bound.render(single, False) == bound.render((chats.ASK, chats.ANSWER), False), (
                "it has no place for reasoning, and an answer with some is another text"
            )
            return
        messages = (*single, chats.ASK_MORE, chats.REASONED_MORE)
        segments = bound.render(messages, False)
        text = chats.text_of(segments)
        trained = "".join(segment.text for segment in segments if segment.trainable)
        for at in (1, 3):
            reasoning = str(messages[at].reasoning)
            follows = text.startswith(chats.text_of(bound.render(messages[:at], True)))
            begun = len(chats.text_of(bound.render(messages[:at], True))) in dict(chats.trained_spans(segments))
            told = f"answer {(at + 1) // 2} of {text!r}: the text has its reasoning: {reasoning in text}; it follows "
            told += f"from its prompt: {follows}; it is trained on: {begun}"
            assert begun == (follows and reasoning in text), told
            assert not begun or reasoning in trained, f"the reasoning of {told}"
