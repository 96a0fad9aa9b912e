"""Renders conversations with an official chat template and with ours, and finds the reasons for what differs."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from official_conversations import CASES, Case

from lmflow_core.api import ChatTemplate, Message, as_turns
from lmflow_core.templates.matching import most_alike
from lmflow_core.templates.patterns import around
from lmflow_templates import plugin
from lmflow_transformers.tokenizers import TransformersTokenizer

# The day on which our templates are, for official ones that ask for today's.
_DAY = {"%d": "26", "%m": "07", "%b": "Jul", "%B": "July", "%Y": "2024", "%y": "24"}
_REPLACED = "".join(f"|replace('{code}', '{text}')" for code, text in _DAY.items())
_FIXED_DATE = f"{{%- macro strftime_now(format) -%}}{{{{- format{_REPLACED} -}}}}{{%- endmacro -%}}"

DATA = yaml.safe_load(Path(__file__).with_name("official_templates.yaml").read_text(encoding="utf-8"))
TEMPLATES = {spec.name: spec.target for spec in plugin.lmflow_register_templates()}


@dataclass(frozen=True)
class Reference:
    """An official file and the template that is compared with it.

    Attributes:
        source: where it comes from, ``llama.cpp`` or ``TRL``.
        file: its name.
        template: name of ours.
        differs: for the name of each reason, the conversations that it explains, or ``rest`` for all others.
        given: variables that the file is given.
        tokens: the opening and the end token.
        reasoning_in_content: the file takes reasoning only inside of a content.
        undone: texts that somebody put into the file, and what was there before.
    """

    source: str
    file: str
    template: str
    differs: Mapping[str, list[str] | str]
    given: Mapping[str, Any]
    tokens: tuple[str, str]
    reasoning_in_content: bool
    undone: Mapping[str, str]


def references() -> Iterator[Reference]:
    """Yield what there is to compare, in the order of the data."""
    for source, files in DATA["files"].items():
        for file, told in files.items():
            yield Reference(
                source,
                file,
                told["template"],
                told.get("differs", {}),
                told.get("given", {}),
                tuple(told.get("tokens", ("<s>", "</s>"))),
                told.get("reasoning_in_content", False),
                told.get("undone", {}),
            )


@functools.cache
def ours(name: str) -> ChatTemplate:
    """Return a template of the plugin, not bound to tokens."""
    module, _, attribute = TEMPLATES[name].partition(":")
    template: ChatTemplate = getattr(importlib.import_module(module), attribute)
    return template


def compare(reference: Reference, official: str) -> dict[str, tuple[str, str]]:
    """Return, for each conversation that both render, what the official file makes of it and what ours does."""
    found = {}
    for name, case in CASES.items():
        if case.thinking is not None and "enable_thinking" not in official:
            continue
        theirs = _official(reference, official, case)
        mine = _ours(reference, case)
        if theirs is not None and mine is not None:
            found[name] = (theirs, mine)
    return found


def _ours(reference: Reference, case: Case) -> str | None:
    template = ours(reference.template).bind(*reference.tokens)
    if case.thinking is not None:
        return _jinja(template.to_jinja(), _turns(case), case, {}, reference.tokens)
    try:
        return "".join(segment.text for segment in template.render(case.messages, case.prompt, case.tools))
    except ValueError:
        return None


def _official(reference: Reference, official: str, case: Case) -> str | None:
    if reference.reasoning_in_content:
        inside = functools.partial(_with_reasoning_inside, ours(reference.template))
        case = replace(case, messages=tuple(map(inside, case.messages)))
    turns = _turns(case)
    text = _jinja(official, turns, case, reference.given, reference.tokens)
    if text is None:  # some take the arguments of calls as text alone
        for turn in turns:
            for call in turn.get("tool_calls", ()):
                call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        text = _jinja(official, turns, case, reference.given, reference.tokens)
    for edited, original in reference.undone.items():
        text = text and text.replace(edited, original)
    return text


def _with_reasoning_inside(template: ChatTemplate, message: Message) -> Message:
    form = template.reasoning
    if message.reasoning is None or form is None:
        return message
    written = form.text.replace("{content}", message.reasoning.strip(form.strip))
    return replace(message, content=written + message.text, reasoning=None)


def _turns(case: Case) -> list[dict[str, Any]]:
    turns = as_turns(case.messages)
    for turn in turns:
        if "reasoning_content" in turn:
            turn["reasoning"] = turn["reasoning_content"]
    return turns


def _jinja(
    jinja: str, turns: list[dict[str, Any]], case: Case, given: Mapping[str, Any], tokens: tuple[str, str]
) -> str | None:
    values = dict(given)
    if case.thinking is not None:
        values["enable_thinking"] = case.thinking
    try:
        text: str = _tokenizer(*tokens).apply_chat_template(
            turns,
            tools=[*case.tools] or None,
            chat_template=_FIXED_DATE + jinja if "strftime_now" in jinja else jinja,
            tokenize=False,
            add_generation_prompt=case.prompt,
            **values,
        )
    except Exception:  # a template may refuse a conversation with any error of its own
        return None
    return text


@functools.cache
def _tokenizer(bos: str, eos: str) -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token=bos, eos_token=eos)


def of_our_own_making(template: ChatTemplate, theirs: str, mine: str) -> str | None:
    """Return the rule of ours that alone makes two texts differ; None where none does."""
    if theirs == mine.removesuffix(template.end):
        return "end"
    if theirs == mine.removesuffix(around(template.assistant)[1]):
        return "unended"
    form = template.reasoning
    empty = form and (form.closed or form.text.replace("{content}", ""))
    if form and empty and mine.removesuffix(template.end).replace(empty, form.without) == theirs:
        return "opened"
    return None


def reasons(reference: Reference, compared: Mapping[str, tuple[str, str]]) -> dict[str, list[str]]:
    """Return the conversations that differ, by the name of the reason; it is empty for those that have none."""
    told = {case: reason for reason, cases in reference.differs.items() if cases != "rest" for case in cases}
    [rest] = [reason for reason, cases in reference.differs.items() if cases == "rest"] or [""]
    template = ours(reference.template).bind(*reference.tokens)
    found: dict[str, list[str]] = {}
    for name, (theirs, mine) in compared.items():
        if theirs != mine:
            rule = of_our_own_making(template, theirs, mine)
            found.setdefault(rule or told.get(name, rest), []).append(name)
    return found


def recognised(reference: Reference, official: str) -> list[str]:
    """Return the templates that a model with the official file is taken to talk in."""
    inner = copy(_tokenizer(*reference.tokens))
    inner.chat_template = official
    bound = {name: ours(name).bind(*reference.tokens) for name in TEMPLATES}
    return most_alike(TransformersTokenizer(inner), bound)
