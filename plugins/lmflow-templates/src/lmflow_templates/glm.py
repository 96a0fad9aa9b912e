"""GLM. These models end an answer by opening the next turn, whose mark is therefore trained on.

The last answer of a conversation is followed by the mark of a user's turn, which the models' own templates leave out:
without it, a model tuned on single answers would never learn to stop. Their tools, a system turn of their own in
Chinese prose, are left out.
"""

from __future__ import annotations

from lmflow_core.api import ChatTemplate

CHATGLM3 = ChatTemplate(
    begin="[gMASK]sop",
    system="<|system|>\n {content}",
    user="<|user|>\n {content}",
    assistant_header="<|assistant|>",
    assistant="\n {content}",
    end="<|user|>",
    stop=("<|user|>", "<|observation|>"),
)

GLM4 = ChatTemplate(
    begin="[gMASK]<sop>",
    system="<|system|>\n{content}",
    user="<|user|>\n{content}",
    assistant_header="<|assistant|>",
    assistant="\n{content}",
    end="<|user|>",
    stop=("<|user|>", "<|observation|>"),
)
