"""Whether two models mean the same by each id."""

from __future__ import annotations

from lmflow_core.api import ModelError
from lmflow_transformers.models import CausalModel


def check_vocabulary(model: CausalModel, other_model: CausalModel, flag: str) -> None:
    """Check that two models mean the same by each id; ``flag`` is the option that names the second.

    Raises:
        ModelError: they do not.
    """
    if model.tokenizer.fingerprint == other_model.tokenizer.fingerprint:
        return
    mine, other = (each.tokenizer.inner.get_vocab() for each in (model, other_model))
    if mine == other:
        return
    differing = sorted(text for text in mine.keys() | other.keys() if mine.get(text) != other.get(text))
    raise ModelError(
        f"{flag} {other_model.reference} has {len(other)} tokens and {model.reference} {len(mine)}, and they differ "
        f"in {len(differing)} of them, such as {differing[0]!r}: choose one with the tokenizer of the model"
    )
