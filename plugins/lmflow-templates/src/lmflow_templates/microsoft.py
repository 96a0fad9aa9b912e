"""Microsoft's Phi."""

from __future__ import annotations

from lmflow_core.api import ChatTemplate, Tools

# Phi 3 and 3.5. LMFlow's began with the opening token, as the first release of the model's own template did.
PHI3 = ChatTemplate(
    system="<|system|>\n{content}<|end|>\n",
    user="<|user|>\n{content}<|end|>\n",
    assistant_header="<|assistant|>\n",
    assistant="{content}<|end|>",
    assistant_end="\n",
    end="{eos}",
    stop=("<|end|>",),
)

PHI4 = ChatTemplate(
    system="<|im_start|>system<|im_sep|>{content}<|im_end|>",
    user="<|im_start|>user<|im_sep|>{content}<|im_end|>",
    assistant_header="<|im_start|>assistant<|im_sep|>",
    assistant="{content}<|im_end|>",
    stop=("<|im_end|>",),
)

# The model's own template takes tools as text; how calls and results look is what llama.cpp makes of the model card.
PHI4_MINI = ChatTemplate(
    system="<|system|>{content}<|end|>",
    user="<|user|>{content}<|end|>",
    assistant_header="<|assistant|>",
    assistant="{content}<|end|>",
    end="{eos}",
    stop=("<|end|>",),
    tools=Tools(
        system="<|system|>{content}{tools}You are a helpful assistant with some tools.\nTo use a tool, respond in this "
        'format: <|tool_call|>{"name": "foo", "arguments": {"a": 1}}<|/tool_call|><|end|>',
        tool="<|tool|>{function}<|/tool|>",
        call='<|tool_call|>{"name": "{name}", "arguments": {arguments}}<|/tool_call|>',
        result="<|tool_response|>{json}<|end|>",
    ),
)
