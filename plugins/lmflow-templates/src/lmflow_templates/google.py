"""Google's Gemma."""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.api import ChatTemplate, Reasoning

# Gemma and Gemma 2 know no system prompt.
GEMMA = ChatTemplate(
    begin="{bos}",
    user="<start_of_turn>user\n{content}<end_of_turn>\n",
    assistant_header="<start_of_turn>model\n",
    assistant="{content}<end_of_turn>",
    assistant_end="\n",
    stop=("<end_of_turn>",),
    strip=("user", "assistant"),
)

GEMMA3 = replace(GEMMA, system="{content}\n\n", system_in_user=True)

# Gemma 4 without its tools, whose arguments have a form of their own. Reasoning is switched on with a system prompt
# that begins with a line <|think|>.
GEMMA4 = ChatTemplate(
    begin="{bos}",
    system="<|turn>system\n{content}<turn|>\n",
    user="<|turn>user\n{content}<turn|>\n",
    assistant_header="<|turn>model\n",
    assistant="{content}<turn|>",
    assistant_end="\n",
    stop=("<turn|>",),
    strip=("system", "user", "assistant"),
    reasoning=Reasoning(text="<|channel>thought\n{content}\n<channel|>", strip=""),
)

# The larger models, which answer without reasoning unless it is asked for; they write it before calls alone.
GEMMA4_31B = replace(
    GEMMA4,
    reasoning=replace(GEMMA4.reasoning, closed="<|channel>thought\n<channel|>", on=""),
)
