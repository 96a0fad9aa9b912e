"""Google's Gemma."""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.api import ChatTemplate

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
