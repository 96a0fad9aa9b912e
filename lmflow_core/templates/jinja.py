"""A template's description to Jinja that renders the text of :mod:`lmflow_core.templates.rendering`.

Both go through a conversation in the same steps, and a step that changes in one changes in the other. What is decided
by the description alone is decided here, so that the Jinja holds only what a conversation decides.

The Jinja is plain, so that other engines than Jinja's own take it. Statements stand on one line, as white space
between them would be text. What is set inside of a loop is lost behind it, which is why some of it lives in ``ns``.

An image in a content is no text: which tokens stand for it is the model's affair. Both renderings leave it out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from lmflow_core.templates.description import Description, Reasoning, Tools
from lmflow_core.templates.patterns import around, split_pattern
from lmflow_core.templates.reasoning import reasoning_marks


def compiled(template: Description) -> str:
    """Return the Jinja text."""
    return "".join(_Compiler(template).statements())


class _Compiler:
    def __init__(self, template: Description) -> None:
        self.template = template
        self.tools = template.tools

    def statements(self) -> Iterator[str]:
        template = self.template
        yield from self._set_up()
        yield _out(_literal(template.begin))
        yield from self._system()
        yield _do("for message in turns")
        yield _do("set content = message['content'] or ''") + _joined_parts()
        yield from self._stripping()
        yield _do("if message['role'] == 'user'")
        yield from self._user()
        yield _do("elif message['role'] == 'assistant'")
        yield from self._assistant()
        if self.tools:
            yield _do("elif message['role'] == 'tool'")
            yield from self._result(self.tools)
        yield _do("else") + _raise("'unexpected role: ' + message['role']") + _do("endif")
        yield _do("endfor")
        opening = template.reasoning.opening if template.reasoning else ""
        yield _do("if add_generation_prompt") + _out(_literal(template.assistant_header + opening))
        if template.end:
            yield _do("else") + _out(_literal(template.end))
        yield _do("endif")

    def _set_up(self) -> Iterator[str]:
        template, tools = self.template, self.tools
        trim = "|trim" if "system" in template.strip else ""
        default = _literal(template.default_system)
        if tools is None:
            yield _do("if tools") + _raise("'no place for tools'") + _do("endif")
        elif tools.system_alone is not None:
            default = f"none if tools else {default}"
        elif tools.default_system is not None:
            default = f"{_literal(tools.default_system)} if tools else {default}"
        yield _do("set ns = namespace(last_user=-1, calls=0, results=0, offered='', content='', reasoning='')")
        yield _do("if messages and messages[0]['role'] == 'system'")
        yield _do("set content = messages[0]['content']") + _joined_parts()
        yield _do(f"set system = content{trim}") + _do("set turns = messages[1:]")
        yield _do("else")
        yield _do(f"set system = {default}") + _do("set turns = messages")
        yield _do("endif")
        # Answers before the last question are written without their reasoning, and a loop does not look ahead.
        if template.reasoning:
            yield _do("for message in turns") + _do("if message['role'] == 'user'")
            yield _do("set ns.last_user = loop.index0") + _do("endif") + _do("endfor")
        if tools:
            yield from self._offered(tools)

    def _offered(self, tools: Tools) -> Iterator[str]:
        indent = "" if tools.indent is None else f"(indent={tools.indent})"
        yield _do("if tools")
        if tools.tool is None:
            yield _do(f"set ns.offered = tools|tojson{indent}")
        else:
            inside = f"((tool['function'] if tool['function'] else tool)|tojson{indent})"
            listed = _joined(tools.tool, {"tool": f"(tool|tojson{indent})", "function": inside})
            yield _do("for tool in tools") + _do(f"set ns.offered = ns.offered + {listed}") + _do("endfor")
        yield _do("endif")

    def _stripping(self) -> Iterator[str]:
        roles = [role for role in self.template.strip if role != "system"]
        if roles:
            tests = " or ".join(f"message['role'] == '{role}'" for role in roles)
            yield _do(f"if {tests}") + _do("set content = content|trim") + _do("endif")

    def _system(self) -> Iterator[str]:
        template, tools = self.template, self.tools
        yield _do("set lead = ''")
        if tools and tools.system is not None:
            alone = tools.system_alone
            system = "system" if alone is not None else "(system or '')"
            with_tools = _joined(tools.system, {"content": system, "tools": "ns.offered"})
            if alone is not None:
                yield _do("if tools and system is none") + _do(f"set lead = {_joined(alone, {'tools': 'ns.offered'})}")
                yield _do("elif tools")
            else:
                yield _do("if tools")
            yield _do(f"set lead = {with_tools}") + _do("elif system is not none")
        else:
            yield _do("if system is not none")
        if template.system is None:
            yield _raise("'no place for a system message'")
        else:
            yield _do(f"set lead = {_joined(template.system, {'content': 'system'})}")
        yield _do("endif")
        if not template.system_in_user:
            yield _out("lead")

    def _user(self) -> Iterator[str]:
        lead = "(lead if loop.first else '') + " if self.template.system_in_user else ""
        values = {"content": f"{lead}content", "tools": "ns.offered"}
        if self.tools and self.tools.user is not None:
            yield _do("if tools and loop.first") + _out(_joined(self.tools.user, values)) + _do("else")
            yield _out(_joined(self.template.user, values)) + _do("endif")
        else:
            yield _out(_joined(self.template.user, values))

    def _assistant(self) -> Iterator[str]:
        template = self.template
        yield _out(_literal(template.assistant_header))
        yield _do("set ns.content = content")
        if template.reasoning:
            yield from self._reasoning(template.reasoning)
        # With a prompt behind it, even the last turn is an earlier one.
        yield _do("set last = loop.last and not add_generation_prompt")
        before, after = around(template.assistant)
        earlier_before, earlier_after = around(template.assistant_earlier or template.assistant)
        opening = _either("last", before, earlier_before)
        closing = _either("last", after, earlier_after)
        if self.tools and self.tools.turn is not None:
            alone = "message['tool_calls'] and not ns.content"
            before, after = around(self.tools.turn)
            opening = f"({_literal(before)} if {alone} else {opening})"
            closing = f"({_literal(after)} if {alone} else {closing})"
        yield _out(f"{opening} + ns.content")
        yield from self._calls()
        yield _out(f"{closing} + {_literal(template.assistant_end)}")

    def _reasoning(self, form: Reasoning) -> Iterator[str]:
        before, after = around(form.text)
        opens, closes = map(_literal, reasoning_marks(self.template, form))
        yield _do("set ns.reasoning = message['reasoning_content'] or ''")
        # Who keeps a conversation often keeps what the model wrote, reasoning and answer in one content.
        yield _do(f"if message['reasoning_content'] is not string and {closes} in content")
        first = f"content.split({closes})[0].rstrip('\\n').split({opens})[-1].lstrip('\\n')"
        yield _do(f"set ns.reasoning = {first}")
        yield _do(f"set ns.content = content.split({closes})[-1].lstrip('\\n')")
        yield _do("endif")
        shown = "true" if form.opening else "ns.reasoning"
        if form.always and not form.opening:
            shown = "(ns.reasoning or loop.last)"
        kept = "" if form.keep else "loop.index0 > ns.last_user and "
        yield _do(f"if {kept}{shown}")
        yield _out(f"{_literal(before)} + ns.reasoning.strip('\\n') + {_literal(after)}")
        yield _do("set ns.content = ns.content.lstrip('\\n')")
        yield _do("endif")

    def _calls(self) -> Iterator[str]:
        tools = self.tools
        yield _do("if message['tool_calls']")
        if tools is None:
            yield _raise("'no place for calls of tools'") + _do("endif")
            return
        if not tools.content_beside_calls:
            yield _do("if content") + _raise("'no place for a text beside a call'") + _do("endif")
        if not tools.several_calls:
            yield _do("if message['tool_calls']|length > 1") + _raise("'no place for several calls'") + _do("endif")
        # The results that follow are numbered as the calls of this turn, some of which may have had none before.
        yield _do("set ns.results = ns.calls")
        if tools.before_calls:
            yield _do("if ns.content") + _out(_literal(tools.before_calls)) + _do("endif")
        before, after = around(tools.calls)
        yield _out(_literal(before)) + _do("for item in message['tool_calls']")
        # OpenAI's form wraps a call, and its arguments may be JSON in a text or the values themselves.
        yield _do("set call = item['function'] if item['function'] else item")
        yield _do("set ns.calls = ns.calls + 1")
        if tools.between_calls:
            yield _do("if not loop.first") + _out(_literal(tools.between_calls)) + _do("endif")
        arguments = "(call['arguments'] if call['arguments'] is string else call['arguments']|tojson)"
        yield _out(_joined(tools.call, {"name": "call['name']", "arguments": arguments, "id": _id("ns.calls")}))
        yield _do("endfor") + _out(_literal(after)) + _do("endif")

    def _result(self, tools: Tools) -> Iterator[str]:
        before, after = around(tools.results)
        values = {"content": "content", "json": "(content|tojson)", "id": _id("ns.results")}
        yield _do("set ns.results = ns.results + 1")
        if before:
            yield _do("if turns[loop.index0 - 1]['role'] != 'tool'") + _out(_literal(before)) + _do("endif")
        yield _out(_joined(tools.result, values))
        if after:
            yield _do("if loop.last or turns[loop.index0 + 1]['role'] != 'tool'")
            yield _out(_literal(after)) + _do("endif")


def _joined_parts() -> str:
    """Return statements that join the texts of a ``content`` that is a list of parts."""
    return (
        _do("if content and content is not string")
        + _do("set ns.content = ''")
        + _do("for part in content")
        + _do("if part['type'] == 'text'")
        + _do("set ns.content = ns.content + part['text']")
        + _do("endif")
        + _do("endfor")
        + _do("set content = ns.content")
        + _do("endif")
    )


def _do(statement: str) -> str:
    return f"{{%- {statement} -%}}"


def _out(expression: str) -> str:
    return "" if expression == '""' else f"{{{{- {expression} -}}}}"


def _raise(message: str) -> str:
    return _out(f"raise_exception({message})")


def _either(condition: str, text: str, otherwise: str) -> str:
    if text == otherwise:
        return _literal(text)
    return f"({_literal(text)} if {condition} else {_literal(otherwise)})"


def _joined(pattern: str, values: Mapping[str, str]) -> str:
    """Return an expression for a pattern whose slots are expressions."""
    parts = [
        part
        for text, slot in split_pattern(pattern)
        for part in (_literal(text), f"({values[slot]})" if slot else '""')
        if part != '""'
    ]
    return " + ".join(parts) or '""'


def _id(number: str) -> str:
    return f"('00000000' ~ {number})[-9:]"


def _literal(text: str | None) -> str:
    return "none" if text is None else json.dumps(text, ensure_ascii=False)
