"""Tencent's Hunyuan."""

from __future__ import annotations

from lmflow_core.api import ChatTemplate, Reasoning, Tools

_OFFER = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>{tools}\n</tools>\n\n"
    "For function call returns, you should first print <tool_calls:opensource>\n"
    "For each function call, you should return object like:\n"
    "<tool_call:opensource>{function-name}<tool_sep:opensource>\n"
    "<arg_key:opensource>{arg-key-1}</arg_key:opensource>\n<arg_value:opensource>{arg-value-1}</arg_value:opensource>\n"
    "<arg_key:opensource>{arg-key-2}</arg_key:opensource>\n<arg_value:opensource>{arg-value-2}</arg_value:opensource>\n"
    "...\n</tool_call:opensource>\nAt the end of function call returns, you should print </tool_calls:opensource>"
    "<｜reasoning_mode:opensource｜>reasoning_effort:no_think"
)
# Hunyuan 3, which answers without reasoning unless it is asked for.
HUNYUAN3 = ChatTemplate(
    begin="<｜hy_begin_of_sentence:opensource｜>",
    system="{content}<｜reasoning_mode:opensource｜>reasoning_effort:no_think",
    default_system="",
    user="<｜hy_User:opensource｜>{content}",
    assistant_header="<｜hy_Assistant:opensource｜>",
    assistant="{content}<｜hy_eos:opensource｜>",
    stop=("<｜hy_eos:opensource｜>",),
    tools=Tools(
        empty_system=False,
        system=f"{{content}}\n\n{_OFFER}",
        system_alone=_OFFER,
        tool="\n{tool}",
        call="<tool_call:opensource>{name}<tool_sep:opensource>\n{arguments}</tool_call:opensource>\n",
        argument=(
            "<arg_key:opensource>{key}</arg_key:opensource>\n<arg_value:opensource>{value}</arg_value:opensource>\n"
        ),
        calls="<tool_calls:opensource>\n{calls}</tool_calls:opensource>",
        result="<tool_response:opensource>\n{content}\n</tool_response:opensource>\n",
        results="<tool_responses:opensource>\n{results}</tool_responses:opensource>",
    ),
    reasoning=Reasoning(
        text="<think:opensource>{content}</think:opensource>",
        closed="<think:opensource></think:opensource>",
        without="<think:opensource></think:opensource>",
        strip="",
    ),
)
