"""The templates, side by side. What stands in ``assistant`` is what the model writes and is trained on."""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.api import ChatTemplate

CHATML = ChatTemplate(
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    assistant_header="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    assistant_end="\n",
    stop=("<|im_end|>",),
)

SMOLLM2 = replace(CHATML, default_system="You are a helpful AI assistant named SmolLM, trained by Hugging Face")

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

# Llama 3; later releases put dates into a system turn of their own making, which this template does not.
LLAMA3 = ChatTemplate(
    begin="<|begin_of_text|>",
    system="<|start_header_id|>system<|end_header_id|>\n\n{content}<|eot_id|>",
    user="<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>",
    assistant_header="<|start_header_id|>assistant<|end_header_id|>\n\n",
    assistant="{content}<|eot_id|>",
    stop=("<|eot_id|>",),
    strip=("system", "user", "assistant"),
)

ZEPHYR = ChatTemplate(
    system="<|system|>\n{content}{eos}\n",
    user="<|user|>\n{content}{eos}\n",
    assistant_header="<|assistant|>\n",
    assistant="{content}{eos}",
    assistant_end="\n",
    stop=("{eos}",),
)

EMPTY = ChatTemplate(
    begin="{bos}",
    system="{content}",
    user="{content}",
    assistant="{content}{eos}",
    stop=("{eos}",),
)
