"""Examples of the kinds that objectives learn from, small enough for a tiny model."""

from __future__ import annotations

from lmflow_core.contracts.examples import (
    Candidates,
    Conversation,
    Example,
    Judged,
    Message,
    Preference,
    Prompt,
    Prompted,
    Text,
)


def _chat(asked: str, answer: str) -> Conversation:
    return Conversation((Message("user", asked), Message("assistant", answer)))


# Of each kind some, of different lengths. Numbers and images alone are learned by no model of text.
EXAMPLES: dict[str, tuple[Example, ...]] = {
    "text": (Text("The quick brown fox jumps over the lazy dog."), Text("hello world")),
    "prompted": (Prompted("2 + 3 =", " 5"), Prompted("The capital of France is", " Paris, on the river Seine.")),
    "conversation": (_chat("What is the capital of France?", "Paris."), _chat("no", "The dog does not mind at all.")),
    "prompt": (
        Prompt((Message("user", "hello"),)),
        Prompt((Message("user", "What is the capital of France?"),)),
        Prompt((Message("user", "the quick brown fox"),)),
    ),
    "preference": (
        Preference(_chat("hello", "Hello! What is it?"), _chat("hello", "no"), margin=1.0),
        Preference(Prompted("2 + 3 =", " 5"), Prompted("2 + 3 =", " a whole lot more"), margin=2.0),
        Preference(_chat("Is it?", "It is."), _chat("Is it?", "world world world"), margin=0.5),
    ),
    "judged": (
        Judged(_chat("hello", "Hello! What is it?"), True),
        Judged(_chat("hello", "no"), False),
        Judged(Prompted("2 + 3 =", " 5"), True),
        Judged(Prompted("2 + 3 =", " world"), False),
    ),
    "candidates": (
        Candidates("The dog", (" does not mind.", " jumps.", " world hello"), (1.0, 0.5, -1.0)),
        Candidates("What is", (" it?", " the capital of France?"), (0.0, 2.0)),
    ),
}
