"""A template's description to segments. :mod:`lmflow_core.templates.jinja` says the same in Jinja, step by step."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lmflow_core.contracts.examples import ImagePart, Message, Segment, ToolCall, call_id, check_turns, is_trained
from lmflow_core.templates.arguments import escaped, written_value
from lmflow_core.templates.contents import stripped_parts
from lmflow_core.templates.declarations import as_elements
from lmflow_core.templates.description import Description, Reasoning, Tools
from lmflow_core.templates.patterns import around, split_pattern
from lmflow_core.templates.reasoning import follows_from_prompt, shows_reasoning, split_reasoning


def rendered(
    template: Description, messages: Sequence[Message], prompt: bool, tools: Sequence[Mapping[str, Any]]
) -> tuple[Segment, ...]:
    """Render a conversation; ``prompt`` asks for an answer at its end.

    Raises:
        ValueError: the roles are out of order, or the template has no place for something.
    """
    check_turns(messages)
    _check_fits(template, messages, tools)
    segments = _Rendering(template, messages, prompt, tools).segments()
    return tuple(segment for segment in segments if segment.text or segment.image is not None)


def _check_fits(template: Description, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> None:
    for message in messages:
        if message.role != "user" and not isinstance(message.content, str):
            _check_has_no_image(message)
    calling = [message for message in messages if message.tool_calls]
    if template.tools is None and (tools or calling):
        raise ValueError("the template has no place for tools: choose one that has, or leave them out")
    for message in calling:
        assert template.tools is not None
        if message.text and not template.tools.content_beside_calls:
            raise ValueError("the template has no place for a text beside a call of a tool")
        if len(message.tool_calls) > 1 and not template.tools.several_calls:
            raise ValueError("the template has no place for several calls in one turn")


def _check_has_no_image(message: Message) -> None:
    if any(isinstance(part, ImagePart) for part in message.parts):
        raise ValueError(f"an image stands in a {message.role} message; only a user's message may hold one")


class _Rendering:
    """One conversation being rendered."""

    def __init__(
        self, template: Description, messages: Sequence[Message], prompt: bool, tools: Sequence[Mapping[str, Any]]
    ) -> None:
        self.template = template
        self.prompt = prompt
        self.tools = tools
        self.system, self.turns = _system_of(template, messages, bool(tools))
        self.last_user = max(at for at, message in enumerate(self.turns) if message.role == "user")
        self.calls = self.results = 0
        self.called: Sequence[ToolCall] = ()
        # Set behind a call whose reasoning is left out, up to the next question.
        self.dropped_reasoning = False
        # Set behind a trained answer whose stop is the beginning of the next turn.
        self.awaits_stop = False

    def segments(self) -> Iterator[Segment]:
        template = self.template
        yield Segment(template.begin, control=True)
        lead = [*self._system()]
        if not template.system_in_user:
            yield from lead
            lead = []
        for role, group in itertools.groupby(enumerate(self.turns), lambda turn: turn[1].role):
            if role == "tool":
                yield from self._results([message for _, message in group])
                continue
            for at, message in group:
                if role == "user":
                    yield from self._user(at, message, lead if at == 0 else [])
                else:
                    yield from self._assistant(at, message)
        if not self.prompt:
            yield from self._opened([Segment(template.end, control=True)])
            return
        asked = template.reasoning.asked if template.reasoning else ""
        yield Segment(template.assistant_header + asked, control=True)

    def _system(self) -> Iterator[Segment]:
        tools, system = self.template.tools, self.system
        if tools is None or tools.system is None or not self.tools:
            if system is None:
                yield Segment(self.template.system_alone or "", control=True)
            else:
                yield from self._filled(self.template.system or "{content}", {"content": [Segment(system)]})
        elif system is None and tools.system_alone is not None:
            yield from self._filled(tools.system_alone, {"tools": self._offered(tools)})
        else:
            values = {"content": [Segment(system or "")], "tools": self._offered(tools)}
            yield from self._filled(tools.system, values)

    def _offered(self, tools: Tools) -> list[Segment]:
        if tools.tool is None:
            return [Segment(_json([*self.tools], tools.indent))]
        listed: list[Segment] = []
        for tool in self.tools:
            values = {"tool": _json(tool, tools.indent), "function": _json(tool.get("function", tool), tools.indent)}
            values["elements"] = as_elements(tool)
            listed += self._filled(tools.tool, {name: [Segment(text)] for name, text in values.items()})
        return listed

    def _user(self, at: int, message: Message, lead: Sequence[Segment]) -> Iterator[Segment]:
        tools = self.template.tools
        self.dropped_reasoning = False
        trained = is_trained(message)
        values = {"content": [*lead, *self._user_content(message, trained)]}
        pattern = self.template.user
        if at == 0 and self.tools and tools is not None and tools.user is not None:
            pattern = tools.user
            values["tools"] = self._offered(tools)
        *opening, closing = self._filled(pattern, values)
        yield from self._opened(opening)
        yield from self._with_stop(closing.text, trained)

    def _user_content(self, message: Message, trained: bool) -> list[Segment]:
        if isinstance(message.content, str):
            return [Segment(self._content(message), trained)]
        parts = stripped_parts(message.parts) if "user" in self.template.strip else message.parts
        return [Segment("", image=p) if isinstance(p, ImagePart) else Segment(p, trained) for p in parts]

    def _assistant(self, at: int, message: Message) -> Iterator[Segment]:
        template = self.template
        reasoning, content = split_reasoning(template, message.reasoning, self._content(message))
        is_last = at == len(self.turns) - 1
        answers_last = at >= self.last_user
        shown = shows_reasoning(template, reasoning, answers_last=answers_last, is_last=is_last)
        trained = is_trained(message) and follows_from_prompt(template, reasoning, shown, answers_last)
        # When this was written, the reasoning before the calls it follows still stood in its prompt.
        trained = trained and not self.dropped_reasoning
        self.dropped_reasoning |= bool(reasoning) and not shown and template.reasoning is not None
        # The header ends every prompt, so the model never has to write it.
        yield Segment(template.assistant_header, control=True)
        if shown and template.reasoning is not None:
            content = content.lstrip("\n")
            yield from self._reasoning(template.reasoning, reasoning.strip(template.reasoning.strip), trained)
        elif template.reasoning is not None:
            closed = template.reasoning.closed if answers_last else ""
            # What a prompt holds is never trained on.
            yield Segment(closed or template.reasoning.without, trained and not template.reasoning.closed, control=True)
        # A prompt makes even the last turn an earlier one: what it writes is followed by the answer that is due.
        earlier = template.assistant_earlier if self.prompt or not is_last else None
        pattern = earlier or template.assistant
        if message.tool_calls and not content and template.tools is not None:
            pattern = template.tools.turn or pattern
        written = [Segment(content, trained), *self._calls(message.tool_calls, bool(content), trained)]
        # A turn has one slot, whichever its pattern calls it: what the model writes, answer and calls alike.
        *before, after = self._filled(pattern, {"content": written, "calls": written}, trained)
        yield from before
        # What ends an earlier turn is not what ends an answer: trained on it, the model would never stop.
        yield Segment(after.text, trained and earlier is None, control=True)
        yield Segment(template.assistant_end, control=True)
        # Where no stop is part of the turn, the model stops by opening the next one, whose first text is then trained.
        self.awaits_stop = trained and not any(stop in template.assistant for stop in template.stop)

    def _reasoning(self, form: Reasoning, reasoning: str, trained: bool) -> Iterator[Segment]:
        before, after = around(form.text)
        # The prompt ends with the opening, as with the header, and what a prompt holds is never trained on.
        yield Segment(form.opening, control=True)
        yield Segment(before.removeprefix(form.opening), trained, control=True)
        yield Segment(reasoning, trained)
        yield Segment(after, trained, control=True)

    def _calls(self, calls: Sequence[ToolCall], after_content: bool, trained: bool) -> Iterator[Segment]:
        tools = self.template.tools
        if not calls or tools is None:
            return
        self.results, self.called = self.calls, calls
        if after_content:
            yield Segment(tools.before_calls, trained, control=True)
        written: list[Segment] = []
        for call in calls:
            self.calls += 1
            if written:
                written.append(Segment(tools.between_calls, trained, control=True))
            values = {"name": call.name, "id": call_id(self.calls), "index": str(self.calls - 1)}
            filled = {slot: [Segment(text, trained)] for slot, text in values.items()}
            filled["arguments"] = [*self._arguments(tools, call.arguments, trained)]
            written += self._filled(tools.call, filled, trained)
        yield from self._filled(tools.calls, {"calls": written}, trained)

    def _arguments(self, tools: Tools, arguments: Mapping[str, Any], trained: bool) -> Iterator[Segment]:
        if tools.argument is None:
            yield Segment(_json(arguments), trained)
            return
        for at, (key, value) in enumerate(arguments.items()):
            if at:
                yield Segment(tools.between_arguments, trained, control=True)
            is_text = isinstance(value, str)
            pattern = (tools.text_argument if is_text else None) or tools.argument
            text = escaped(value) if is_text and tools.escaped_texts else value
            written = text if is_text else written_value(value, tools.python_values)
            filled = {"key": [Segment(key, trained)], "value": [Segment(written, trained)]}
            yield from self._filled(pattern, filled, trained)

    def _results(self, messages: Iterable[Message]) -> Iterator[Segment]:
        tools = self.template.tools
        assert tools is not None  # a result follows a call, for which there is a place
        written: list[Segment] = []
        for call, message in itertools.zip_longest(self.called, messages):
            if message is None:
                break
            self.results += 1
            content = self._content(message)
            values = {"content": content, "json": _json(content), "name": call.name if call else ""}
            values |= {"id": call_id(self.results), "index": str(self.results - 1)}
            written += self._filled(tools.result, {k: [Segment(v)] for k, v in values.items()})
        yield from self._opened(self._filled(tools.results, {"results": written}))

    def _opened(self, segments: Iterable[Segment]) -> Iterator[Segment]:
        """Yield the segments of a turn; the first text of the template may be the stop of the answer before."""
        for segment in segments:
            if self.awaits_stop and (segment.text or segment.image is not None):
                self.awaits_stop = False
                yield from self._with_stop(segment.text, segment.control) if segment.control else [segment]
            else:
                yield segment

    def _with_stop(self, text: str, trained: bool) -> Iterator[Segment]:
        stop = next((stop for stop in self.template.stop if trained and text.startswith(stop)), "")
        yield Segment(stop, trained, control=True)
        yield Segment(text.removeprefix(stop), control=True)

    def _content(self, message: Message) -> str:
        # Most contents are plain, and asking a message for its text would put parts together first.
        text = message.content if isinstance(message.content, str) else message.text
        return text.strip() if message.role in self.template.strip else text

    def _filled(
        self, pattern: str, values: Mapping[str, Sequence[Segment]], trained: bool = False
    ) -> Iterator[Segment]:
        for text, slot in split_pattern(pattern):
            yield Segment(text, trained, control=True)
            yield from values[slot] if slot else ()


def _system_of(template: Description, messages: Sequence[Message], tools: bool) -> tuple[str | None, Sequence[Message]]:
    """Return the system prompt, given or by default, and the turns behind it."""
    if messages[0].role != "system":
        return _default_system(template, tools), messages
    if template.system is None:
        raise ValueError("the template has no place for a system message")
    content = messages[0].text.strip() if "system" in template.strip else messages[0].text
    written = template.tools.empty_system if tools and template.tools else template.empty_system
    if not content and not written:
        return _default_system(template, tools), messages[1:]
    return content, messages[1:]


def _default_system(template: Description, tools: bool) -> str | None:
    if template.tools is None or not tools:
        return template.default_system
    if template.tools.system_alone is not None:
        return None
    return template.default_system if template.tools.default_system is None else template.tools.default_system


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
