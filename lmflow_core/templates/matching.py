"""Which template a model was made with: the one that renders some conversations as the model's own does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmflow_core.contracts.examples import ImagePart, Message, ToolCall
from lmflow_core.contracts.template import Template
from lmflow_core.contracts.tokens import Tokenizer

_TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}},
}
_USER, _ANSWER, _MORE = Message("user", "a"), Message("assistant", "b"), Message("user", "c")
_SYSTEM, _CALL, _RESULT = (
    Message("system", "s"),
    Message("assistant", "", tool_calls=(ToolCall("f", {"a": True, "b": "c"}),)),
    Message("tool", "r"),
)
_SHOWN = Message("user", (ImagePart("image"), "a"))
_REASONED = Message("assistant", "b", reasoning="t")


@dataclass(frozen=True)
class _Probe:
    """A conversation to compare. Who renders one that is ``needed`` must do so alike; others tell equals apart."""

    messages: tuple[Message, ...]
    prompt: bool
    needed: bool = False
    tools: tuple[Mapping[str, Any], ...] = ()


_PROBES = (
    _Probe((_USER,), True, needed=True),
    _Probe((_SYSTEM, _USER), True, needed=True),
    _Probe((_USER, _ANSWER, _MORE), True, needed=True),
    _Probe((_USER, _ANSWER), False),
    _Probe((_USER, _REASONED), False),
    _Probe((_SYSTEM, _USER), True, tools=(_TOOL,)),
    _Probe((_USER, _CALL, _RESULT), True, tools=(_TOOL,)),
)


class Own:
    """What a tokenizer's own template makes of the probes; None where it refuses one."""

    def __init__(self, tokenizer: Tokenizer, placeholder: str | None = None) -> None:
        """Render the probes; with a ``placeholder``, which stands for an image, also one that has an image."""
        self._placeholder = placeholder or ""
        self._probes = (*_PROBES, _Probe((_SHOWN,), True, needed=True)) if placeholder else _PROBES
        self._texts = [tokenizer.render_chat(probe.messages, probe.prompt, probe.tools) for probe in self._probes]

    def likeness(self, template: Template) -> tuple[int, int] | None:
        """Return how many probes a template renders alike, at first less those it renders otherwise.

        None if it does not fit. Both may refuse a probe, and are alike in that; where only one does, the probe does not
        count.
        """
        alike = otherwise = compared = 0
        for probe, own in zip(self._probes, self._texts, strict=True):
            ours = _rendered(template, probe, self._placeholder)
            both = own is not None and ours is not None
            if probe.needed and both and ours != own:
                return None
            compared += probe.needed and both
            alike += ours == own
            otherwise += both and ours != own
        return (alike - otherwise, alike) if compared else None


def _rendered(template: Template, probe: _Probe, placeholder: str) -> str | None:
    try:
        segments = template.render(probe.messages, probe.prompt, probe.tools)
    except ValueError:
        return None
    return "".join(segment.text if segment.image is None else placeholder for segment in segments)


def most_alike(tokenizer: Tokenizer, templates: Mapping[str, Template], placeholder: str | None = None) -> list[str]:
    """Return the names of the templates that render most like the tokenizer's own; of twins, the first name."""
    own = Own(tokenizer, placeholder)
    likeness = {name: alike for name, template in templates.items() if (alike := own.likeness(template)) is not None}
    best = [name for name, alike in likeness.items() if alike == max(likeness.values())]
    return [*_without_twins(best, templates)]


def _without_twins(names: Sequence[str], templates: Mapping[str, Template]) -> Iterator[str]:
    seen = set()
    for name in names:
        if templates[name].fingerprint not in seen:
            seen.add(templates[name].fingerprint)
            yield name
