"""IBM's Granite."""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.api import ChatTemplate, Tools

_DATES = "Knowledge Cutoff Date: April 2024. Today's Date: July 26, 2024. You are Granite, developed by IBM."

# Granite 3.1 to 3.3. The model's own template puts today's date into the default system prompt, with which a text
# trained on today would not be the same tomorrow, and takes calls of tools as text, the way they are written here.
GRANITE3 = ChatTemplate(
    system="<|start_of_role|>system<|end_of_role|>{content}<|end_of_text|>\n",
    default_system=f"{_DATES} You are a helpful AI assistant.",
    user="<|start_of_role|>user<|end_of_role|>{content}<|end_of_text|>\n",
    assistant_header="<|start_of_role|>assistant<|end_of_role|>",
    assistant="{content}<|end_of_text|>",
    assistant_end="\n",
    stop=("<|end_of_text|>",),
    tools=Tools(
        system=(
            "<|start_of_role|>system<|end_of_role|>{content}<|end_of_text|>\n"
            "<|start_of_role|>available_tools<|end_of_role|>{tools}<|end_of_text|>\n"
        ),
        default_system=(
            f"{_DATES} You are a helpful assistant with access to the following tools. When a tool is required to "
            "answer the user's query, respond only with <|tool_call|> followed by a JSON list of tools used. If a tool "
            "does not exist in the provided list of tools, notify the user that you do not have the ability to fulfill "
            "the request."
        ),
        indent=4,
        call='{"name": "{name}", "arguments": {arguments}}',
        between_calls=", ",
        calls="<|tool_call|>[{calls}]",
        result="<|start_of_role|>tool<|end_of_role|>{content}<|end_of_text|>\n",
    ),
)

_OFFER = (
    "You are a helpful assistant with access to the following tools. You may call one or more tools to assist with the "
    "user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>{tools}\n"
    "</tools>\n\nFor each tool call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
    "</tool_call>. If a tool does not exist in the provided list of tools, notify the user that you do not have the "
    "ability to fulfill the request.<|end_of_text|>\n"
)
GRANITE4 = replace(
    GRANITE3,
    default_system="You are a helpful assistant. Please ensure responses are professional, accurate, and safe.",
    empty_system=False,
    tools=Tools(
        system="<|start_of_role|>system<|end_of_role|>{content}\n\n" + _OFFER,
        system_alone="<|start_of_role|>system<|end_of_role|>" + _OFFER,
        tool="\n{tool}",
        call='<tool_call>\n{"name": "{name}", "arguments": {arguments}}\n</tool_call>',
        before_calls="\n",
        between_calls="\n",
        result="\n<tool_response>\n{content}\n</tool_response>",
        results="<|start_of_role|>user<|end_of_role|>{results}<|end_of_text|>\n",
    ),
)

GRANITE4_1 = replace(GRANITE4, default_system=None)
