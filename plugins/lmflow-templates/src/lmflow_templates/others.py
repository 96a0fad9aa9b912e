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
    user="<|start|>user<|message|>{content}<|end|>",
    assistant_header="<|start|>assistant",
    assistant="<|channel|>final<|message|>{content}<|return|>",
    assistant_earlier="<|channel|>final<|message|>{content}<|end|>",
    stop=("<|return|>", "<|call|>"),
    reasoning=Reasoning(text="<|channel|>analysis<|message|>{content}<|end|><|start|>assistant"),
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

# Without the thinking budget and the tools of the model's own template.
SEED_OSS = ChatTemplate(
    system="{bos}system\n{content}{eos}",
    user="{bos}user\n{content}{eos}",
    assistant_header="{bos}assistant\n",
    assistant="{content}{eos}",
    stop=("{eos}",),
    strip=("assistant",),
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

# Without the tools of the model's own template, whose ids of calls hold names.
KIMI_K2 = ChatTemplate(
    system="<|im_system|>system<|im_middle|>{content}<|im_end|>",
    default_system="You are a helpful assistant",
    user="<|im_user|>user<|im_middle|>{content}<|im_end|>",
    assistant_header="<|im_assistant|>assistant<|im_middle|>",
    assistant="{content}<|im_end|>",
    stop=("<|im_end|>",),
)

EMPTY = ChatTemplate(
    begin="{bos}",
    system="{content}",
    user="{content}",
    assistant="{content}{eos}",
    stop=("{eos}",),
)

EMPTY_NO_SPECIAL_TOKENS = replace(EMPTY, begin="", assistant="{content}", stop=())
