"""What a conversation template says, as data: texts with slots, checked and without behaviour."""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.templates.patterns import slots


@dataclass(frozen=True, kw_only=True)
class Reasoning:
    """How a template writes an assistant's reasoning, between its header and its answer.

    That of turns before the last question is left out, as most models' own templates do.

    Attributes:
        text: the reasoning, with ``{content}``. A content that holds what closes it is split there.
        always: the last answer has the text even where there is no reasoning.
        opening: the start of ``text`` that already stands in a prompt; every answer to the last question begins so.
        keep: the reasoning of earlier turns stays too.
        strip: characters that are taken off both ends of the reasoning; None takes all white space.
        without: what stands in place of reasoning that is not written.
        closed: what ends every prompt of a model that answers without reasoning unless it is asked for it; an answer to
            the last question that has reasoning then does not follow from its prompt.
        off: what ends a prompt where the variable ``enable_thinking`` of a saved template is false; None pays no heed.
        on: the same where it is true.
    """

    text: str
    always: bool = False
    opening: str = ""
    keep: bool = False
    strip: str | None = "\n"
    without: str = ""
    closed: str = ""
    off: str | None = None
    on: str | None = None

    def __post_init__(self) -> None:
        _check_slots("text of reasoning", self.text, ["content"])
        if not self.text.startswith(self.opening):
            raise ValueError(f"the text of reasoning must begin with its opening {self.opening!r}: {self.text!r}")
        if self.opening and self.closed:
            raise ValueError(f"a prompt cannot open reasoning and close it: {self.opening!r}, {self.closed!r}")

    @property
    def asked(self) -> str:
        """What a prompt ends with, behind the assistant's header."""
        return self.opening or self.closed


@dataclass(frozen=True, kw_only=True)
class Tools:
    """How a template offers tools, and writes calls and their results.

    Attributes:
        system: the system turn where tools are offered, with ``{content}`` and ``{tools}``; None leaves it as it is.
        system_alone: the same where no system prompt is given; None renders ``system`` with the default one or none.
        default_system: the system prompt where tools are offered and none is given; None is the template's.
        empty_system: an empty system prompt is written where tools are offered; else it counts as none.
        user: the first user's turn where tools are offered, with ``{tools}`` and ``{content}``.
        tool: one of the tools, with ``{tool}`` as JSON, its inside ``{function}``, or that as ``{elements}`` of markup;
            None writes all of them as one JSON list.
        indent: spaces by which the JSON of tools is indented; None is one line.
        call: a call, with ``{name}``, ``{arguments}`` and perhaps its number in the conversation: ``{id}`` counts from
            one in nine digits, ``{index}`` from zero.
        argument: one of the arguments, with ``{key}`` and ``{value}``, a text as it is and all else as JSON; None
            writes all of them as one JSON object.
        text_argument: the same for an argument that is a text; None is ``argument``.
        escaped_texts: a text among them has quotes, line breaks and backslashes escaped, as in Python.
        between_arguments: text between two arguments.
        python_values: numbers, truth values and nothing stand as in Python, not as in JSON.
        between_calls: text between two calls.
        calls: all calls of a turn, with ``{calls}``; they follow the content, where there is one.
        before_calls: text between a content and calls.
        turn: what the model writes in a turn of calls alone, with ``{calls}``; None writes them in place of a content.
        result: the result of a call, with ``{content}`` or, as a JSON string, ``{json}``, and perhaps the ``{id}``,
            ``{index}`` and ``{name}`` of the call.
        results: results that follow each other, with ``{results}``.
        content_beside_calls: whether a turn that calls may hold a content too.
        several_calls: whether a turn may hold more than one call.
    """

    call: str
    result: str
    system: str | None = None
    system_alone: str | None = None
    default_system: str | None = None
    empty_system: bool = True
    user: str | None = None
    tool: str | None = None
    indent: int | None = None
    argument: str | None = None
    text_argument: str | None = None
    escaped_texts: bool = False
    between_arguments: str = ""
    python_values: bool = False
    between_calls: str = ""
    calls: str = "{calls}"
    before_calls: str = ""
    turn: str | None = None
    results: str = "{results}"
    content_beside_calls: bool = True
    several_calls: bool = True

    def __post_init__(self) -> None:
        _check_slots("call", self.call, ["name", "arguments"], ("id", "index"))
        for name in ("argument", "text_argument"):
            _check_slots(name, getattr(self, name) or "{key}{value}", ["key", "value"])
        if self.text_argument and not self.argument:
            raise ValueError("'text_argument' of a template needs an 'argument' for those that are no text")
        _check_slots("calls", self.calls, ["calls"])
        _check_slots("results", self.results, ["results"])
        _check_slots("result", self.result.replace("{json}", "{content}"), ["content"], ("id", "index", "name"))
        for name in ("system", "user"):
            _check_slots(name, getattr(self, name) or "{content}", ["content"], ("tools",))
        _check_slots("system_alone", self.system_alone or "", [], ("tools",))
        tool = (self.tool or "{tool}").replace("{function}", "{tool}").replace("{elements}", "{tool}")
        _check_slots("tool", tool, ["tool"])
        _check_slots("turn", self.turn or "{calls}", ["calls"])


@dataclass(frozen=True, kw_only=True)
class Description:
    """The texts of a template; a turn is text around a ``{content}``.

    ``{bos}`` and ``{eos}`` stand for the tokenizer's own tokens and are filled in when it is known.

    Attributes:
        begin: text before the first turn.
        system: the system turn; None when the model knows no system prompt.
        system_alone: the system turn where no system prompt is given; None renders ``system`` with the default one or
            none.
        user: a user's turn.
        assistant_header: what opens an assistant's turn; it ends the prompt when an answer is asked for.
        assistant: what the model writes: its content and its stop. This alone is trained on.
        assistant_earlier: the same in a turn that others follow, where the text behind the content is not trained on.
        assistant_end: what follows an assistant's turn and is not trained on.
        end: text behind a conversation that does not ask for an answer.
        stop: texts that end an answer. Where ``assistant`` holds none, the model stops by opening the next turn, whose
            text (or ``end``) then begins with a stop, which is trained on.
        default_system: the system prompt of a conversation that has none.
        empty_system: an empty system prompt is written; else it counts as none.
        system_in_user: the system turn is rendered inside the first user's turn, before its content.
        strip: roles whose contents are stripped of white space at both ends.
        reasoning: how the assistant's reasoning is written; None leaves it out.
        tools: how tools are offered and called; None when the template has no place for them.
    """

    user: str
    assistant: str
    stop: tuple[str, ...]
    begin: str = ""
    system: str | None = None
    system_alone: str | None = None
    assistant_header: str = ""
    assistant_earlier: str | None = None
    assistant_end: str = ""
    end: str = ""
    default_system: str | None = None
    empty_system: bool = True
    system_in_user: bool = False
    strip: tuple[str, ...] = ()
    reasoning: Reasoning | None = None
    tools: Tools | None = None

    def __post_init__(self) -> None:
        for name in ("user", "assistant", "system", "assistant_earlier"):
            text = getattr(self, name)
            _check_slots(name, "{content}" if text is None else text, ["content"])
        _check_slots("system_alone", self.system_alone or "", [])


def _check_slots(name: str, text: str, needed: list[str], allowed: tuple[str, ...] = ()) -> None:
    found = [slot for slot in slots(text) if slot not in allowed]
    if sorted(found) != sorted(needed):
        wanted = " and ".join(f"{{{slot}}}" for slot in needed)
        raise ValueError(f"{name!r} of a template must hold {wanted or 'no slot'}, once: {text!r}")
