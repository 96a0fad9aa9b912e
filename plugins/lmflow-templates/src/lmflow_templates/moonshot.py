"""Moonshot's Kimi K2. The id of a call holds the name of its tool and its number in the conversation."""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.api import ChatTemplate, Reasoning, Tools

# Without the tools of the first release's own template, which numbers the calls of each turn anew and does not name
# them in their results.
KIMI_K2 = ChatTemplate(
    system="<|im_system|>system<|im_middle|>{content}<|im_end|>",
    default_system="You are a helpful assistant",
    user="<|im_user|>user<|im_middle|>{content}<|im_end|>",
    assistant_header="<|im_assistant|>assistant<|im_middle|>",
    assistant="{content}<|im_end|>",
    stop=("<|im_end|>",),
)

_KIMI = "<|im_system|>system<|im_middle|>You are Kimi, an AI assistant created by Moonshot AI.<|im_end|>"
_DECLARED = "<|im_system|>tool_declare<|im_middle|>{tools}<|im_end|>"
# The line break behind the default system prompt is the own template's, too.
KIMI_K2_0905 = replace(
    KIMI_K2,
    default_system=None,
    system_alone=f"{_KIMI}\n",
    tools=Tools(
        system=f"{_DECLARED}{KIMI_K2.system}",
        system_alone=f"{_DECLARED}{_KIMI}\n",
        call=("<|tool_call_begin|>functions.{name}:{index}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"),
        calls="<|tool_calls_section_begin|>{calls}<|tool_calls_section_end|>",
        result="<|im_system|>tool<|im_middle|>## Return of functions.{name}:{index}\n{content}<|im_end|>",
    ),
)

# The model's own template leaves the reasoning of the last answer out, too; here it stays, as it is to be learned.
KIMI_K2_THINKING = replace(
    KIMI_K2_0905,
    system_alone=_KIMI,
    tools=replace(KIMI_K2_0905.tools, system_alone=f"{_DECLARED}{_KIMI}"),
    reasoning=Reasoning(text="<think>{content}</think>", strip="", without="<think></think>"),
)
