"""A template's description to Jinja that renders the text of :mod:`lmflow_core.templates.rendering`.

Both go through a conversation in the same steps, and a step that changes in one changes in the other. What is decided
by the description alone is decided here, so that the Jinja holds only what a conversation decides.

The Jinja is plain, so that other engines than Jinja's own take it. Statements stand on one line, as white space
between them would be text. What is set inside of a loop is lost behind it, which is why some of it lives in ``ns``.

An image in a content is no text: which tokens stand for it is the model's affair. It is left out, or written as what
the model's processor puts these tokens in the place of.
"""

from __future__ import annotations

from collections.abc import Iterator

from lmflow_core.templates.arguments import ESCAPES
from lmflow_core.templates.declarations import DECLARED
from lmflow_core.templates.description import Description, Reasoning, Tools
from lmflow_core.templates.patterns import around
from lmflow_core.templates.reasoning import reasoning_marks
from lmflow_core.templates.statements import call_number, do, either, joined, joined_parts, literal, out, refuse


def compiled(template: Description, image: str = "") -> str:
    """Return the Jinja text, which writes ``image`` for each image of a user's."""
    return "".join(_Compiler(template, image).statements())


_ARGUMENT = {"key": "key", "value": "value"}


class _Compiler:
    def __init__(self, template: Description, image: str) -> None:
        self.template = template
        self.image = image
        self.tools = template.tools

    def statements(self) -> Iterator[str]:
        template = self.template
        yield from self._set_up()
        yield out(literal(template.begin))
        yield from self._system()
        yield do("for message in turns")
        yield do("set content = message['content'] or ''") + joined_parts(self.image)
        yield from self._stripping()
        yield do("if message['role'] == 'user'")
        yield from self._user()
        yield do("elif message['role'] == 'assistant'")
        yield from self._assistant()
        if self.tools:
            yield do("elif message['role'] == 'tool'")
            yield from self._result(self.tools)
        yield do("else") + refuse("'unexpected role: ' + message['role']") + do("endif")
        yield do("endfor")
        yield do("if add_generation_prompt") + self._prompt()
        if template.end:
            yield do("else") + out(literal(template.end))
        yield do("endif")

    def _set_up(self) -> Iterator[str]:
        template, tools = self.template, self.tools
        trim = "|trim" if "system" in template.strip else ""
        default = literal(template.default_system)
        if tools is None:
            yield do("if tools") + refuse("'no place for tools'") + do("endif")
        elif tools.system_alone is not None:
            default = f"none if tools else {default}"
        elif tools.default_system is not None:
            default = f"{literal(tools.default_system)} if tools else {default}"
        yield do(
            "set ns = namespace(last_user=-1, calls=0, results=0, called=[], offered='', content='', reasoning='')"
        )
        yield do("if messages and messages[0]['role'] == 'system'")
        yield do("set content = messages[0]['content']") + joined_parts()
        yield do(f"set system = content{trim}") + do("set turns = messages[1:]")
        emptied = [] if template.empty_system else ["not tools" if tools else "true"]
        emptied += ["tools"] if tools and not tools.empty_system else []
        if emptied:
            yield do(f"if not system and ({' or '.join(emptied)})") + do(f"set system = {default}") + do("endif")
        yield do("else")
        yield do(f"set system = {default}") + do("set turns = messages")
        yield do("endif")
        # Answers before the last question are written without their reasoning, and a loop does not look ahead.
        if template.reasoning:
            yield do("for message in turns") + do("if message['role'] == 'user'")
            yield do("set ns.last_user = loop.index0") + do("endif") + do("endfor")
        if tools:
            yield from self._offered(tools)

    def _offered(self, tools: Tools) -> Iterator[str]:
        indent = "" if tools.indent is None else f"(indent={tools.indent})"
        yield do("if tools")
        if tools.tool is None:
            yield do(f"set ns.offered = tools|tojson{indent}")
        else:
            inside = f"((tool['function'] if tool['function'] else tool)|tojson{indent})"
            values = {"tool": f"(tool|tojson{indent})", "function": inside, "elements": "declared(tool)"}
            if "{elements}" in tools.tool:
                yield DECLARED
            listed = joined(tools.tool, values)
            yield do("for tool in tools") + do(f"set ns.offered = ns.offered + {listed}") + do("endfor")
        yield do("endif")

    def _stripping(self) -> Iterator[str]:
        roles = [role for role in self.template.strip if role != "system"]
        if roles:
            tests = " or ".join(f"message['role'] == '{role}'" for role in roles)
            yield do(f"if {tests}") + do("set content = content|trim") + do("endif")

    def _system(self) -> Iterator[str]:
        template, tools = self.template, self.tools
        yield do("set lead = ''")
        if tools and tools.system is not None:
            alone = tools.system_alone
            system = "system" if alone is not None else "(system or '')"
            with_tools = joined(tools.system, {"content": system, "tools": "ns.offered"})
            if alone is not None:
                yield do("if tools and system is none") + do(f"set lead = {joined(alone, {'tools': 'ns.offered'})}")
                yield do("elif tools")
            else:
                yield do("if tools")
            yield do(f"set lead = {with_tools}") + do("elif system is not none")
        else:
            yield do("if system is not none")
        if template.system is None:
            yield refuse("'no place for a system message'")
        else:
            yield do(f"set lead = {joined(template.system, {'content': 'system'})}")
        if template.system_alone is not None:
            yield do("else") + do(f"set lead = {literal(template.system_alone)}")
        yield do("endif")
        if not template.system_in_user:
            yield out("lead")

    def _user(self) -> Iterator[str]:
        lead = "(lead if loop.first else '') + " if self.template.system_in_user else ""
        values = {"content": f"{lead}content", "tools": "ns.offered"}
        if self.tools and self.tools.user is not None:
            yield do("if tools and loop.first") + out(joined(self.tools.user, values)) + do("else")
            yield out(joined(self.template.user, values)) + do("endif")
        else:
            yield out(joined(self.template.user, values))

    def _assistant(self) -> Iterator[str]:
        template = self.template
        yield out(literal(template.assistant_header))
        yield do("set ns.content = content")
        if template.reasoning:
            yield from self._reasoning(template.reasoning)
        # With a prompt behind it, even the last turn is an earlier one.
        yield do("set last = loop.last and not add_generation_prompt")
        before, after = around(template.assistant)
        earlier_before, earlier_after = around(template.assistant_earlier or template.assistant)
        opening = either("last", before, earlier_before)
        closing = either("last", after, earlier_after)
        if self.tools and self.tools.turn is not None:
            alone = "message['tool_calls'] and not ns.content"
            before, after = around(self.tools.turn)
            opening = f"({literal(before)} if {alone} else {opening})"
            closing = f"({literal(after)} if {alone} else {closing})"
        yield out(f"{opening} + ns.content")
        yield from self._calls()
        yield out(f"{closing} + {literal(template.assistant_end)}")

    def _prompt(self) -> str:
        header, form = self.template.assistant_header, self.template.reasoning
        prompt = out(literal(header + (form.asked if form else "")))
        for text, test in ((form.off, "not enable_thinking"), (form.on, "enable_thinking")) if form else ():
            if text is not None:
                switched = do(f"if enable_thinking is defined and {test}") + out(literal(header + text))
                prompt = switched + do("else") + prompt + do("endif")
        return prompt

    def _reasoning(self, form: Reasoning) -> Iterator[str]:
        before, after = around(form.text)
        opens, closes = map(literal, reasoning_marks(self.template, form))
        yield do("set ns.reasoning = message['reasoning_content'] or ''")
        # Who keeps a conversation often keeps what the model wrote, reasoning and answer in one content.
        yield do(f"if message['reasoning_content'] is not string and {closes} in content")
        first = f"content.split({closes})[0].rstrip('\\n').split({opens})[-1].lstrip('\\n')"
        yield do(f"set ns.reasoning = {first}")
        yield do(f"set ns.content = content.split({closes})[-1].lstrip('\\n')")
        yield do("endif")
        shown = "true" if form.opening else "ns.reasoning"
        if form.always and not form.opening:
            shown = "(ns.reasoning or loop.last)"
        kept = "" if form.keep else "loop.index0 > ns.last_user and "
        yield do(f"if {kept}{shown}")
        stripped = "|trim" if form.strip is None else f".strip({literal(form.strip)})" if form.strip else ""
        yield out(f"{literal(before)} + ns.reasoning{stripped} + {literal(after)}")
        yield do("set ns.content = ns.content.lstrip('\\n')")
        if form.closed:
            yield do("elif loop.index0 > ns.last_user") + out(literal(form.closed))
        if form.without:
            yield do("else") + out(literal(form.without))
        yield do("endif")

    def _calls(self) -> Iterator[str]:
        tools = self.tools
        yield do("if message['tool_calls']")
        if tools is None:
            yield refuse("'no place for calls of tools'") + do("endif")
            return
        if not tools.content_beside_calls:
            yield do("if content") + refuse("'no place for a text beside a call'") + do("endif")
        if not tools.several_calls:
            yield do("if message['tool_calls']|length > 1") + refuse("'no place for several calls'") + do("endif")
        # The results that follow are numbered as the calls of this turn, some of which may have had none before.
        yield do("set ns.results = ns.calls") + do("set ns.called = message['tool_calls']")
        if tools.before_calls:
            yield do("if ns.content") + out(literal(tools.before_calls)) + do("endif")
        before, after = around(tools.calls)
        yield out(literal(before)) + do("for item in message['tool_calls']")
        # OpenAI's form wraps a call, and its arguments may be JSON in a text or the values themselves.
        yield do("set call = item['function'] if item['function'] else item")
        yield do("set ns.calls = ns.calls + 1")
        if tools.between_calls:
            yield do("if not loop.first") + out(literal(tools.between_calls)) + do("endif")
        yield from self._call(tools)
        yield do("endfor") + out(literal(after)) + do("endif")

    def _call(self, tools: Tools) -> Iterator[str]:
        values = {"name": "call['name']", "id": call_number("ns.calls"), "index": "(ns.calls - 1)|string"}
        if tools.argument is None:
            values["arguments"] = "(call['arguments'] if call['arguments'] is string else call['arguments']|tojson)"
            yield out(joined(tools.call, values))
            return
        before, after = tools.call.split("{arguments}")
        yield out(joined(before, values))
        yield do("if call['arguments'] is string") + refuse("'arguments of a call must be a mapping'") + do("endif")
        yield do("for key, value in call['arguments'].items()")
        if tools.between_arguments:
            yield do("if not loop.first") + out(literal(tools.between_arguments)) + do("endif")
        escapes = ESCAPES if tools.escaped_texts else ()
        text = "value" + "".join(f"|replace({literal(old)}, {literal(new)})" for old, new in escapes)
        written = joined(tools.text_argument or tools.argument, {**_ARGUMENT, "value": text})
        yield do("if value is string") + out(written) + do("else")
        as_json = "value is mapping or value is sequence" if tools.python_values else "true"
        value = f"(value|tojson) if {as_json} else (value|string)"
        yield out(joined(tools.argument, {**_ARGUMENT, "value": value})) + do("endif")
        yield do("endfor") + out(joined(after, values))

    def _result(self, tools: Tools) -> Iterator[str]:
        before, after = around(tools.results)
        values = {"content": "content", "json": "(content|tojson)", "id": call_number("ns.results"), "name": "ns.name"}
        values["index"] = "(ns.results - 1)|string"
        if "{name}" in tools.result:
            # The call that this is the result of stands as far behind the first of its turn as the result does.
            yield do("set at = ns.results - (ns.calls - ns.called|length)")
            yield do("set call = ns.called[at] if at < ns.called|length else {'name': ''}")
            yield do("set ns.name = call['function']['name'] if call['function'] else call['name']")
        yield do("set ns.results = ns.results + 1")
        if before:
            yield do("if turns[loop.index0 - 1]['role'] != 'tool'") + out(literal(before)) + do("endif")
        yield out(joined(tools.result, values))
        if after:
            yield do("if loop.last or turns[loop.index0 + 1]['role'] != 'tool'")
            yield out(literal(after)) + do("endif")
