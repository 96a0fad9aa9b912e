"""Templates of single families, and none at all."""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.api import ChatTemplate, Reasoning, Tools

ZEPHYR = ChatTemplate(
    system="<|system|>\n{content}{eos}\n",
    user="<|user|>\n{content}{eos}\n",
    assistant_header="<|assistant|>\n",
    assistant="{content}{eos}",
    assistant_end="\n",
    stop=("{eos}",),
)

VICUNA = ChatTemplate(
    begin="{bos}",
    system="{content} ",
    default_system=(
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    ),
    user="USER: {content} ",
    assistant_header="ASSISTANT:",
    assistant=" {content}{eos}",
    stop=("{eos}",),
)

# Alpaca has no turns; further ones repeat the headings.
ALPACA = ChatTemplate(
    begin="{bos}",
    system="{content}\n\n",
    default_system=(
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    ),
    user="### Instruction:\n{content}\n\n",
    assistant_header="### Response:\n",
    assistant="{content}{eos}",
    assistant_end="\n\n",
    stop=("{eos}",),
)

# Command R, Command R+ and Aya, without the tools of templates of their own.
COMMAND_R = ChatTemplate(
    begin="{bos}",
    system="<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{content}<|END_OF_TURN_TOKEN|>",
    user="<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{content}<|END_OF_TURN_TOKEN|>",
    assistant_header="<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    assistant="{content}<|END_OF_TURN_TOKEN|>",
    stop=("<|END_OF_TURN_TOKEN|>",),
    strip=("user", "assistant"),
)

# The harmony format, with the date fixed, as with today's a text trained on today would not be the same tomorrow.
# Its tools are written as TypeScript and have no place here. <|return|> ends the last answer, <|end|> stands in its
# place when others follow and is not trained on, as the model must not write it.
GPT_OSS = ChatTemplate(
    begin=(
        "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
        "Knowledge cutoff: 2024-06\nCurrent date: 2024-07-26\n\nReasoning: medium\n\n"
        "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
    ),
    system="<|start|>developer<|message|># Instructions\n\n{content}\n\n<|end|>",
    empty_system=False,
    user="<|start|>user<|message|>{content}<|end|>",
    assistant_header="<|start|>assistant",
    assistant="<|channel|>final<|message|>{content}<|return|>",
    assistant_earlier="<|channel|>final<|message|>{content}<|end|>",
    stop=("<|return|>", "<|call|>"),
    reasoning=Reasoning(text="<|channel|>analysis<|message|>{content}<|end|><|start|>assistant", strip=""),
)

# The model ends an answer by opening the next turn. The end token behind the last answer, which LMFlow's had too and
# the model's own template has not, teaches it to stop; without a system prompt there is one line break more.
HYMBA = ChatTemplate(
    system="<extra_id_0>System\n{content}\n\n",
    default_system="",
    user="<extra_id_1>User\n{content}\n",
    assistant_header="<extra_id_1>Assistant\n",
    assistant="{content}\n",
    end="{eos}",
    stop=("<extra_id_1>", "{eos}"),
    strip=("system", "user", "assistant", "tool"),
    tools=Tools(
        system="<extra_id_0>System\n{content}\n{tools}\n\n",
        tool="\n<tool> {tool} </tool>",
        call='<toolcall> {"name": "{name}", "arguments": {arguments}} </toolcall>',
        before_calls="\n",
        between_calls="\n",
        result="<extra_id_1>Tool\n{content}\n",
    ),
)

OPENCHAT = ChatTemplate(
    begin="{bos}",
    system="GPT4 Correct System: {content}<|end_of_turn|>",
    user="GPT4 Correct User: {content}<|end_of_turn|>",
    assistant_header="GPT4 Correct Assistant:",
    assistant=" {content}<|end_of_turn|>",
    stop=("<|end_of_turn|>",),
)

EXAONE3 = ChatTemplate(
    system="[|system|]{content}[|endofturn|]\n",
    default_system="",
    user="[|user|]{content}\n",
    assistant_header="[|assistant|]",
    assistant="{content}[|endofturn|]",
    assistant_end="\n",
    stop=("[|endofturn|]",),
)

# Without the thinking budget and the tools of the model's own template, which are written as Python.
SEED_OSS = ChatTemplate(
    system="{bos}system\n{content}{eos}",
    user="{bos}user\n{content}{eos}",
    assistant_header="{bos}assistant\n",
    assistant="{content}{eos}",
    stop=("{eos}",),
    strip=("assistant",),
    reasoning=Reasoning(text="<seed:think>{content}</seed:think>\n", keep=True, strip=None),
)

ORION = ChatTemplate(
    begin="{bos}",
    user="Human: {content}\n\n",
    assistant_header="Assistant: {eos}",
    assistant="{content}{eos}",
    stop=("{eos}",),
)

MEGREZ = ChatTemplate(
    system="<|role_start|>system<|role_end|>{content}<|turn_end|>",
    default_system="你是Megrez-3B-Instruct，将针对用户的问题给出详细的、积极的回答。",
    user="<|role_start|>user<|role_end|>{content}<|turn_end|>",
    assistant_header="<|role_start|>assistant<|role_end|>",
    assistant="{content}<|turn_end|>",
    stop=("<|turn_end|>",),
)

# Prompts open the reasoning; the model's own template leaves an empty one out.
MINIMAX_M2 = ChatTemplate(
    system="]~!b[]~b]system\n{content}[e~[\n",
    default_system="You are a helpful assistant.",
    empty_system=False,
    user="]~b]user\n{content}[e~[\n",
    assistant_header="]~b]ai\n",
    assistant="{content}[e~[",
    assistant_end="\n",
    stop=("[e~[",),
    tools=Tools(
        empty_system=False,
        system=(
            "]~!b[]~b]system\n{content}\n\n# Tools\nYou may call one or more tools to assist with the user query.\n"
            "Here are the tools available in JSONSchema format:\n\n<tools>\n{tools}</tools>\n\n"
            "When making tool calls, use XML format to invoke tools and pass parameters:\n\n<minimax:tool_call>\n"
            '<invoke name="tool-name-1">\n<parameter name="param-key-1">param-value-1</parameter>\n'
            '<parameter name="param-key-2">param-value-2</parameter>\n...\n</invoke>\n</minimax:tool_call>[e~[\n'
        ),
        tool="<tool>{function}</tool>\n",
        call='<invoke name="{name}">\n{arguments}</invoke>\n',
        argument='<parameter name="{key}">{value}</parameter>\n',
        calls="\n<minimax:tool_call>\n{calls}</minimax:tool_call>",
        result="\n<response>{content}</response>",
        results="]~b]tool{results}[e~[\n",
    ),
    reasoning=Reasoning(text="<think>\n{content}\n</think>\n\n", opening="<think>\n", strip=""),
)

# Without the tools, written as TypeScript, and the reasoning of the model's own template, whose date is today's.
APERTUS = ChatTemplate(
    begin="{bos}",
    system=(
        "<|system_start|>{content}<|system_end|>"
        "<|developer_start|>Deliberation: disabled\nTool Capabilities: disabled<|developer_end|>"
    ),
    default_system=(
        "You are Apertus, a helpful assistant created by the SwissAI initiative.\nKnowledge cutoff: 2024-04\n"
        "Current date: 2024-07-26"
    ),
    user="<|user_start|>{content}<|user_end|>",
    assistant_header="<|assistant_start|>",
    assistant="{content}<|assistant_end|>",
    stop=("<|assistant_end|>",),
)

# Without the tools of the model's own template, which writes every call twice.
MINICPM5 = ChatTemplate(
    begin="{bos}",
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    assistant_header="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    assistant_end="\n",
    stop=("<|im_end|>",),
    reasoning=Reasoning(text="<think>\n{content}\n</think>\n\n", off="<think>\n\n</think>\n\n", on="<think>\n"),
)

EMPTY = ChatTemplate(
    begin="{bos}",
    system="{content}",
    user="{content}",
    assistant="{content}{eos}",
    stop=("{eos}",),
)

EMPTY_NO_SPECIAL_TOKENS = replace(EMPTY, begin="", assistant="{content}", stop=())
