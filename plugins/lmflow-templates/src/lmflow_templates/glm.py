"""GLM. These models end an answer by opening the next turn, whose mark is therefore trained on.

The last answer of a conversation is followed by the mark of a user's turn, which the models' own templates leave out:
without it, a model tuned on single answers would never learn to stop. The tools of ChatGLM3 and GLM-4, a system turn of
their own in Chinese prose, are left out.
"""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.api import ChatTemplate, Reasoning, Tools

CHATGLM3 = ChatTemplate(
    begin="[gMASK]sop",
    system="<|system|>\n {content}",
    user="<|user|>\n {content}",
    assistant_header="<|assistant|>",
    assistant="\n {content}",
    end="<|user|>",
    stop=("<|user|>", "<|observation|>"),
)

GLM4 = ChatTemplate(
    begin="[gMASK]<sop>",
    system="<|system|>\n{content}",
    user="<|user|>\n{content}",
    assistant_header="<|assistant|>",
    assistant="\n{content}",
    end="<|user|>",
    stop=("<|user|>", "<|observation|>"),
)

_OFFER = (
    "<|system|>\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{tools}</tools>\n\n"
    "For each function call, output the function name and arguments within the following XML format:\n"
    "<tool_call>{function-name}"
)
_OFFER_4_5 = (
    f"{_OFFER}\n<arg_key>{{arg-key-1}}</arg_key>\n<arg_value>{{arg-value-1}}</arg_value>\n"
    "<arg_key>{arg-key-2}</arg_key>\n<arg_value>{arg-value-2}</arg_value>\n...\n</tool_call>"
)
# With thinking off, the model's own template writes /nothink into the questions, too.
GLM4_5 = replace(
    GLM4,
    assistant="{content}",
    strip=("assistant",),
    tools=Tools(
        system=f"{_OFFER_4_5}<|system|>\n{{content}}",
        system_alone=_OFFER_4_5,
        tool="{tool}\n",
        call="<tool_call>{name}\n{arguments}</tool_call>",
        argument="<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n",
        before_calls="\n",
        between_calls="\n",
        result="\n<tool_response>\n{content}\n</tool_response>",
        results="<|observation|>{results}",
    ),
    reasoning=Reasoning(
        text="\n<think>{content}</think>\n", strip=None, without="\n<think></think>\n", off="\n<think></think>"
    ),
)

_OFFER_4_7 = (
    f"{_OFFER}<arg_key>{{arg-key-1}}</arg_key><arg_value>{{arg-value-1}}</arg_value>"
    "<arg_key>{arg-key-2}</arg_key><arg_value>{arg-value-2}</arg_value>...</tool_call>"
)
# Prompts open the reasoning; the model's own template writes its end alone where there is none.
GLM4_7 = replace(
    GLM4_5,
    system="<|system|>{content}",
    user="<|user|>{content}",
    tools=Tools(
        system=f"{_OFFER_4_7}<|system|>{{content}}",
        system_alone=_OFFER_4_7,
        tool="{tool}\n",
        call="<tool_call>{name}{arguments}</tool_call>",
        argument="<arg_key>{key}</arg_key><arg_value>{value}</arg_value>",
        result="<tool_response>{content}</tool_response>",
        results="<|observation|>{results}",
    ),
    reasoning=Reasoning(
        text="<think>{content}</think>", opening="<think>", strip=None, without="</think>", off="</think>"
    ),
)
