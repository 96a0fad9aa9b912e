"""Qwen since Qwen3-Coder, whose calls hold their arguments one by one."""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.api import Reasoning, Tools
from lmflow_templates.chatml import CHATML

_FORM = (
    " ONLY reply in the following format with NO suffix:\n\n<tool_call>\n<function=example_function_name>\n"
    "<parameter=example_parameter_1>\nvalue_1\n</parameter>\n<parameter=example_parameter_2>\n"
)
_REMINDER = (
    "\n</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n"
    "- Function calls MUST follow the specified format: "
)
_RULES = (
    "\n- Required parameters MUST be specified\n"
    "- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT "
    "after\n- If there is no function call available, answer the question like normal with your current knowledge and "
    "do not tell the user about function calls\n</IMPORTANT>"
)
_NESTED = "an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags"
_FUNCTIONS = "# Tools\n\nYou have access to the following functions:\n\n<tools>{tools}\n</tools>\n\n"
# Qwen3.5 and Nemotron 3 have it in common.
OFFER = (
    f"{_FUNCTIONS}If you choose to call a function{_FORM}This is the value for the second parameter\nthat can span\n"
    f"multiple lines{_REMINDER}{_NESTED}{_RULES}"
)
_CALLS = Tools(
    call="<tool_call>\n<function={name}>\n{arguments}</function>\n</tool_call>",
    argument="<parameter={key}>\n{value}\n</parameter>\n",
    python_values=True,
    before_calls="\n\n",
    between_calls="\n",
    result="\n<tool_response>\n{content}\n</tool_response>",
    results="<|im_start|>user{results}<|im_end|>\n",
)

# The model's own template strips the text beside a call; here it stays as it is.
QWEN3_CODER = replace(
    CHATML,
    tools=replace(
        _CALLS,
        system=(
            "<|im_start|>system\n{content}\n\n# Tools\n\nYou have access to the following tools:\n\n<tools>{tools}\n"
            f"</tools>\n\nIf you choose to call a tool{_FORM}value_2{_REMINDER}"
            "the tool calling block MUST begin with an opening <tool_call> tag and end with a closing </tool_call> tag."
            f"{_RULES}<|im_end|>\n"
        ),
        default_system="You are Qwen, a helpful AI assistant that can interact with a computer to solve tasks.",
        tool="\n{elements}",
        result="<tool_response>\n{content}\n</tool_response>\n",
        results="<|im_start|>user\n{results}<|im_end|>\n",
    ),
)

QWEN3_5 = replace(
    CHATML,
    strip=("system", "user", "assistant", "tool"),
    tools=replace(
        _CALLS,
        system=f"<|im_start|>system\n{OFFER}\n\n{{content}}<|im_end|>\n",
        system_alone=f"<|im_start|>system\n{OFFER}<|im_end|>\n",
        empty_system=False,
        tool="\n{tool}",
    ),
    reasoning=Reasoning(
        text="<think>\n{content}\n</think>\n\n", opening="<think>\n", strip=None, off="<think>\n\n</think>\n\n"
    ),
)

# Qwen3.6 writes the arguments of calls as JSON does.
QWEN3_6 = replace(QWEN3_5, tools=replace(QWEN3_5.tools, python_values=False))

# The small models of Qwen3.5 answer without reasoning unless it is asked for.
QWEN3_5_SMALL = replace(
    QWEN3_5,
    reasoning=Reasoning(
        text="<think>\n{content}\n</think>\n\n", closed="<think>\n\n</think>\n\n", strip=None, on="<think>\n"
    ),
)

_EFFORT = (
    "Reasoning effort is set to xhigh. Please think carefully through the task, validate key assumptions, consider "
    "plausible alternatives, and prioritize correctness, consistency, and clarity in the final answer."
)
# Qwen3.8 keeps the reasoning of earlier turns, so that every answer is trained on.
QWEN3_8 = replace(
    QWEN3_6,
    system=f"<|im_start|>system\n{_EFFORT}\n\n{{content}}<|im_end|>\n",
    system_alone=f"<|im_start|>system\n{_EFFORT}<|im_end|>\n",
    empty_system=False,
    tools=replace(
        QWEN3_6.tools,
        system=f"<|im_start|>system\n{_EFFORT}\n\n{OFFER}\n\n{{content}}<|im_end|>\n",
        system_alone=f"<|im_start|>system\n{_EFFORT}\n\n{OFFER}<|im_end|>\n",
    ),
    reasoning=replace(QWEN3_5.reasoning, keep=True),
)
