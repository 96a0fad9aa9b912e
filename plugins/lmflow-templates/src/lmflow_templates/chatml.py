"""ChatML and what was made of it: Qwen, SmolLM, Yi, InternLM.

What stands in ``assistant`` is what the model writes and is trained on.
"""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.api import ChatTemplate, Reasoning, Tools

CHATML = ChatTemplate(
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    assistant_header="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    assistant_end="\n",
    stop=("<|im_end|>",),
)

# Yi 1.5 has no markup around a system prompt.
YI1_5 = replace(CHATML, system="{content}")

INTERNLM2 = replace(CHATML, begin="{bos}")

SMOLLM2 = replace(CHATML, default_system="You are a helpful AI assistant named SmolLM, trained by Hugging Face")

# The model's own template reads the flags /think and /no_think in a system prompt and puts today's date into it; here
# reasoning is on and the date is fixed, so that a text trained on today is the same tomorrow. Its tools are written as
# Python and not as JSON, and its tool calls are left out of the history; so there are none here.
SMOLLM3 = replace(
    CHATML,
    empty_system=False,
    # The turn is not closed, in the model's own template either.
    system=(
        "<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: 26 July 2024\n"
        "Reasoning Mode: /think\n\n## Custom Instructions\n\n{content}\n\n"
    ),
    default_system=(
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face. Your role as an assistant involves "
        "thoroughly exploring questions through a systematic thinking process before providing the final precise and "
        "accurate solutions. This requires engaging in a comprehensive cycle of analysis, summarizing, exploration, "
        "reassessment, reflection, backtracking, and iteration to develop well-considered thinking process. Please "
        "structure your response into two main sections: Thought and Solution using the specified format: <think> "
        "Thought section </think> Solution section. In the Thought section, detail your reasoning process in steps. "
        "Each step should include detailed considerations such as analysing questions, summarizing relevant findings, "
        "brainstorming new ideas, verifying the accuracy of the current steps, refining any errors, and revisiting "
        "previous steps. In the Solution section, based on various attempts, explorations, and reflections from the "
        "Thought section, systematically present the final solution that you deem correct. The Solution section should "
        "be logical, accurate, and concise and detail necessary steps needed to reach the conclusion."
    ),
    reasoning=Reasoning(text="<think>\n{content}\n</think>\n", keep=True),
)

_OFFER = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>{tools}\n</tools>\n\n"
    "For each function call, return a json object with function name and arguments within <tool_call></tool_call> "
    'XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
)
QWEN_TOOLS = Tools(
    system="<|im_start|>system\n{content}\n\n" + _OFFER,
    tool="\n{tool}",
    call='<tool_call>\n{"name": "{name}", "arguments": {arguments}}\n</tool_call>',
    before_calls="\n",
    between_calls="\n",
    result="\n<tool_response>\n{content}\n</tool_response>",
    results="<|im_start|>user{results}<|im_end|>\n",
)

# LMFlow's had no default system prompt; the model's own template has.
QWEN2 = replace(CHATML, default_system="You are a helpful assistant.")

# Calls and their results are chat turns: a call is JSON in the assistant's turn, a result a turn of the role "tool".
# LMFlow's took calls and tools as text that the data held ready.
QWEN2_FOR_TOOL = replace(
    QWEN2,
    tools=Tools(
        system="<|im_start|>system\n{content}\n{tools}<|im_end|>\n",
        call='{"name": "{name}", "arguments": {arguments}}',
        before_calls="\n",
        between_calls="\n",
        result="<|im_start|>tool\n{content}<|im_end|>\n",
    ),
)

QWEN2_5 = replace(
    CHATML,
    default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    tools=QWEN_TOOLS,
)

QWEN2_5_MATH = replace(
    QWEN2_5, default_system="Please reason step by step, and put your final answer within \\boxed{}."
)

# A last answer without reasoning gets an empty one, as its prompt has opened it already; the model's own template
# leaves it out there, so that what is trained on would not follow from the prompt. Of calls of tools after the last
# question it drops the reasoning, too, which here stays.
QWEN_QWQ = replace(
    CHATML,
    tools=replace(QWEN_TOOLS, system_alone="<|im_start|>system\n\n\n" + _OFFER),
    reasoning=Reasoning(text="<think>\n{content}\n</think>\n\n", opening="<think>\n"),
)

QWEN3 = replace(
    CHATML,
    tools=replace(QWEN_TOOLS, system_alone="<|im_start|>system\n" + _OFFER),
    reasoning=Reasoning(text="<think>\n{content}\n</think>\n\n", always=True, off="<think>\n\n</think>\n\n"),
)

QWEN3_INSTRUCT = replace(QWEN3, reasoning=None)
