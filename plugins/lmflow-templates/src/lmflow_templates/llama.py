"""Meta's Llama."""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.api import ChatTemplate, Tools

# The model card's template strips the system turn and the first question as one text, so that white space between
# them stays. Here each content is stripped alone: with a system prompt, white space around it or before the first
# question makes no difference.
LLAMA2 = ChatTemplate(
    system="<<SYS>>\n{content}\n<</SYS>>\n\n",
    system_in_user=True,
    user="{bos}[INST] {content} [/INST]",
    assistant=" {content} {eos}",
    stop=("{eos}",),
    strip=("system", "user", "assistant"),
)

LLAMA3 = ChatTemplate(
    begin="{bos}",
    system="<|start_header_id|>system<|end_header_id|>\n\n{content}<|eot_id|>",
    user="<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>",
    assistant_header="<|start_header_id|>assistant<|end_header_id|>\n\n",
    assistant="{content}<|eot_id|>",
    stop=("<|eot_id|>",),
    strip=("system", "user", "assistant"),
)

# Calls and their results are chat turns: a call is JSON in the assistant's turn, a result a turn of the role "tool".
# LMFlow's took calls and tools as text that the data held ready.
LLAMA3_FOR_TOOL = replace(
    LLAMA3,
    tools=Tools(
        system="<|start_header_id|>system<|end_header_id|>\n\n{content}\n{tools}<|eot_id|>",
        call='{"name": "{name}", "arguments": {arguments}}',
        before_calls="\n",
        between_calls="\n",
        result="<|start_header_id|>tool<|end_header_id|>\n\n{content}<|eot_id|>",
    ),
)

_HEADER_3_1 = "<|start_header_id|>system<|end_header_id|>\n\n"
_DATES_3_1 = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n{content}<|eot_id|>"

# Llama 3.1, 3.2 and 3.3. The date is the one that 3.1 has when none is given; the template of 3.2 takes today's, with
# which a text trained on today would not be the same tomorrow. A text beside a call, which the model's own template
# drops in silence, is an error.
LLAMA3_1 = replace(
    LLAMA3,
    system=_HEADER_3_1 + _DATES_3_1,
    default_system="",
    stop=("<|eot_id|>", "<|eom_id|>"),
    tools=Tools(
        system=_HEADER_3_1 + "Environment: ipython\n" + _DATES_3_1,
        user=(
            "<|start_header_id|>user<|end_header_id|>\n\n"
            "Given the following functions, please respond with a JSON for a function call with its proper arguments "
            'that best answers the given prompt.\n\nRespond in the format {"name": function name, "parameters": '
            "dictionary of argument name and its value}.Do not use variables.\n\n{tools}{content}<|eot_id|>"
        ),
        tool="{tool}\n\n",
        indent=4,
        call='{"name": "{name}", "parameters": {arguments}}',
        result="<|start_header_id|>ipython<|end_header_id|>\n\n{json}<|eot_id|>",
        content_beside_calls=False,
        several_calls=False,
    ),
)

# Text only, without the tools of its own template.
LLAMA4 = ChatTemplate(
    begin="{bos}",
    system="<|header_start|>system<|header_end|>\n\n{content}<|eot|>",
    user="<|header_start|>user<|header_end|>\n\n{content}<|eot|>",
    assistant_header="<|header_start|>assistant<|header_end|>\n\n",
    assistant="{content}<|eot|>",
    stop=("<|eot|>",),
    strip=("system", "user", "assistant"),
)
