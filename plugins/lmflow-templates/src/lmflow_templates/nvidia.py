"""NVIDIA's Nemotron."""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.api import Reasoning, Tools
from lmflow_templates.chatml import CHATML
from lmflow_templates.qwen import OFFER

_TOOLS = Tools(
    empty_system=False,
    system=f"<|im_start|>system\n{{content}}\n\n{OFFER}<|im_end|>\n",
    system_alone=f"<|im_start|>system\n{OFFER}<|im_end|>\n",
    tool="\n{elements}",
    call="<tool_call>\n<function={name}>\n{arguments}</function>\n</tool_call>\n",
    argument="<parameter={key}>\n{value}\n</parameter>\n",
    python_values=True,
    before_calls="\n",
    result="<tool_response>\n{content}\n</tool_response>\n",
    results="<|im_start|>user\n{results}<|im_end|>\n",
)
_REASONING = Reasoning(
    text="<think>\n{content}\n</think>\n",
    opening="<think>\n",
    strip="",
    without="<think></think>",
    off="<think></think>",
)
# An answer without reasoning has an empty one where its prompt has opened it; the model's own template writes the
# empty pair there that stands in earlier turns, which would not follow from the prompt.
NEMOTRON3 = replace(
    CHATML,
    default_system="",
    empty_system=False,
    strip=("assistant",),
    tools=_TOOLS,
    reasoning=_REASONING,
)

# Nemotron 3 Ultra and Nemotron 3.5, with fewer line breaks around the reasoning.
NEMOTRON3_5 = replace(
    NEMOTRON3,
    tools=replace(_TOOLS, before_calls="", calls="\n{calls}"),
    reasoning=replace(_REASONING, text="<think>\n{content}</think>"),
)
