"""Declares the conversation templates; each is data in :mod:`lmflow_templates.catalog`."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import TemplateSpec, hookimpl


@hookimpl
def lmflow_register_templates() -> Iterable[TemplateSpec]:
    """Offer the templates."""
    return [
        _spec("chatml", "CHATML", "ChatML: turns between <|im_start|> and <|im_end|>."),
        _spec("smollm2", "SMOLLM2", "ChatML with SmolLM2's default system prompt."),
        _spec("llama2", "LLAMA2", "Llama 2 chat: [INST] turns, system in <<SYS>>."),
        _spec("llama3", "LLAMA3", "Llama 3: role headers, turns end with <|eot_id|>."),
        _spec("zephyr", "ZEPHYR", "Zephyr: role tags, turns end with the end token."),
        _spec("empty", "EMPTY", "No markup: contents and the end token."),
    ]


def _spec(name: str, attribute: str, summary: str) -> TemplateSpec:
    return TemplateSpec(name=name, target=f"lmflow_templates.catalog:{attribute}", summary=summary)
