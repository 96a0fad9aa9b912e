"""Liquid's LFM2. Calls are written in the form of Python."""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.api import Reasoning, Tools
from lmflow_templates.chatml import CHATML

_OFFER = "List of tools: <|tool_list_start|>{tools}<|tool_list_end|><|im_end|>\n"
_LFM = replace(CHATML, begin="{bos}", empty_system=False)

# The first release of the model's own template left calls out of the history; they are written as its revision does.
LFM2 = replace(
    _LFM,
    tools=Tools(
        empty_system=False,
        system=f"<|im_start|>system\n{{content}}\n{_OFFER}",
        system_alone=f"<|im_start|>system\n{_OFFER}",
        call="{name}({arguments})",
        argument="{key}={value}",
        text_argument="{key}='{value}'",
        escaped_texts=True,
        between_arguments=", ",
        python_values=True,
        between_calls=", ",
        calls="<|tool_call_start|>[{calls}]<|tool_call_end|>",
        result="<|im_start|>tool\n<|tool_response_start|>{content}<|tool_response_end|><|im_end|>\n",
    ),
)

LFM2_5 = replace(
    LFM2,
    tools=replace(
        LFM2.tools,
        escaped_texts=False,
        system="<|im_start|>system\n{content}\nList of tools: {tools}<|im_end|>\n",
        system_alone="<|im_start|>system\nList of tools: {tools}<|im_end|>\n",
        result="<|im_start|>tool\n{content}<|im_end|>\n",
    ),
)

LFM2_5_THINKING = replace(LFM2_5, reasoning=Reasoning(text="<think>{content}</think>", strip=""))
