"""Mistral, by the generations of its tokenizer. They differ in spaces, and each space is a token.

Before v7 the system prompt stands in a question. The model's own templates put it into the last one, and tools too,
so that the text of a prompt changes with each turn; and with the answer, they drop the system prompt of v3 altogether.
Here both stay with the first question, as a prompt must be the beginning of what is trained on. Conversations with
one question are the same up to the answer. Those of v3 also leave quotes in a tool's description as they are, which
is no JSON; here they are escaped.
"""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.api import ChatTemplate, Reasoning, Tools

# Mistral 7B Instruct 0.1 and 0.2 as first published, which knew no system prompt.
MISTRAL = ChatTemplate(
    begin="{bos}",
    user="[INST] {content} [/INST]",
    assistant="{content}{eos}",
    stop=("{eos}",),
)

MISTRAL_V1 = ChatTemplate(
    begin="{bos}",
    system="{content}\n\n",
    system_in_user=True,
    user=" [INST] {content} [/INST]",
    assistant=" {content}{eos}",
    stop=("{eos}",),
)

# Ids of calls, which the models were trained with, count the calls of a conversation.
MISTRAL_V3 = replace(
    MISTRAL_V1,
    user="[INST] {content}[/INST]",
    tools=Tools(
        user="[AVAILABLE_TOOLS] {tools}[/AVAILABLE_TOOLS][INST] {content}[/INST]",
        call='{"name": "{name}", "arguments": {arguments}, "id": "{id}"}',
        between_calls=", ",
        turn="[TOOL_CALLS] [{calls}]{eos}",
        result='[TOOL_RESULTS] {"content": {content}, "call_id": "{id}"}[/TOOL_RESULTS]',
        content_beside_calls=False,
    ),
)

# Mistral Nemo: the tokenizer called Tekken, no spaces.
MISTRAL_V3_TEKKEN = replace(
    MISTRAL_V3,
    user="[INST]{content}[/INST]",
    assistant="{content}{eos}",
    tools=Tools(
        user="[AVAILABLE_TOOLS]{tools}[/AVAILABLE_TOOLS][INST]{content}[/INST]",
        call='{"name": "{name}", "arguments": {arguments}, "id": "{id}"}',
        between_calls=", ",
        turn="[TOOL_CALLS][{calls}]{eos}",
        result='[TOOL_RESULTS]{"content": {content}, "call_id": "{id}"}[/TOOL_RESULTS]',
        content_beside_calls=False,
    ),
)

MISTRAL_V7 = ChatTemplate(
    begin="{bos}",
    system="[SYSTEM_PROMPT] {content}[/SYSTEM_PROMPT]",
    user="[INST] {content}[/INST]",
    assistant=" {content}{eos}",
    stop=("{eos}",),
)

# Mistral Small 3 and 3.1; the long default system prompt of their own templates is left to the user.
MISTRAL_V7_TEKKEN = ChatTemplate(
    begin="{bos}",
    system="[SYSTEM_PROMPT]{content}[/SYSTEM_PROMPT]",
    user="[INST]{content}[/INST]",
    assistant="{content}{eos}",
    stop=("{eos}",),
)

# Mistral Small 3.2; as above.
MISTRAL_V11 = replace(
    MISTRAL_V7_TEKKEN,
    tools=Tools(
        user="[AVAILABLE_TOOLS]{tools}[/AVAILABLE_TOOLS][INST]{content}[/INST]",
        call="[TOOL_CALLS]{name}[CALL_ID]{id}[ARGS]{arguments}",
        result="[TOOL_RESULTS]{id}[TOOL_CONTENT]{content}[/TOOL_RESULTS]",
        content_beside_calls=False,
    ),
)

# The generation of Magistral, Devstral and Ministral 3: tools stand with the system prompt, calls have no ids. What is
# here is common to them; Ministral 3 alone has a default system prompt that asks for reasoning.
_SYSTEM_13 = "[SYSTEM_PROMPT]{content}[/SYSTEM_PROMPT]"
_TOOLS_13 = Tools(
    system=f"{_SYSTEM_13}[AVAILABLE_TOOLS]{{tools}}[/AVAILABLE_TOOLS]",
    call="[TOOL_CALLS]{name}[ARGS]{arguments}",
    result="[TOOL_RESULTS]{content}[/TOOL_RESULTS]",
)
MISTRAL_V13 = replace(
    MISTRAL_V7_TEKKEN, tools=replace(_TOOLS_13, system_alone="[AVAILABLE_TOOLS]{tools}[/AVAILABLE_TOOLS]")
)
MINISTRAL3 = replace(
    MISTRAL_V7_TEKKEN,
    default_system=(
        "# HOW YOU SHOULD THINK AND ANSWER\n\nFirst draft your thinking process (inner monologue) until you arrive at "
        "a response. Format your response using Markdown, and use LaTeX for any mathematical equations. Write both "
        "your thoughts and the response in the same language as the input.\n\nYour thinking process must follow "
        "the template below:[THINK]Your thoughts or/and draft, like working through an exercise on scratch paper. Be "
        "as casual and as long as you want until you are confident to generate the response to the user.[/THINK]Here, "
        "provide a self-contained response."
    ),
    tools=_TOOLS_13,
    reasoning=Reasoning(text="[THINK]{content}[/THINK]", keep=True, strip=""),
)
