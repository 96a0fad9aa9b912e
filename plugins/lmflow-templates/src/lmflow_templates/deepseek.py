"""DeepSeek."""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.api import ChatTemplate, Reasoning

# DeepSeek LLM, V2 and V2.5.
DEEPSEEK = ChatTemplate(
    begin="{bos}",
    system="{content}\n\n",
    user="User: {content}\n\n",
    assistant_header="Assistant:",
    assistant=" {content}{eos}",
    stop=("{eos}",),
)

DEEPSEEK_CODER = ChatTemplate(
    begin="{bos}",
    system="{content}",
    default_system=(
        "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek Company, and "
        "you only answer questions related to computer science. For politically sensitive questions, security and "
        "privacy issues, and other non-computer science questions, you will refuse to answer\n"
    ),
    user="### Instruction:\n{content}\n",
    assistant_header="### Response:\n",
    assistant="{content}\n<|EOT|>",
    assistant_end="\n",
    stop=("<|EOT|>",),
)

# The models' own templates of V3 and R1 write calls of tools that were never offered, and wrongly from the second call
# of a conversation on; so there are none here.
DEEPSEEK_V3 = ChatTemplate(
    begin="{bos}",
    system="{content}",
    user="<｜User｜>{content}",
    assistant_header="<｜Assistant｜>",
    assistant="{content}<｜end▁of▁sentence｜>",
    stop=("<｜end▁of▁sentence｜>",),
)

# R1 and what was distilled from it. The models' own template drops the reasoning of all answers, even of the last,
# which then does not follow from its prompt. Here the last answer has its reasoning, and earlier ones are not trained
# on.
DEEPSEEK_R1 = replace(DEEPSEEK_V3, reasoning=Reasoning(text="<think>\n{content}\n</think>\n\n", opening="<think>\n"))

# V3.1 and V3.2, which answer without reasoning unless it is asked for; without the calls of tools behind which the
# assistant's turn goes on.
DEEPSEEK_V3_1 = replace(
    DEEPSEEK_V3,
    reasoning=Reasoning(text="<think>{content}</think>", closed="</think>", without="</think>", on="<think>", strip=""),
)
