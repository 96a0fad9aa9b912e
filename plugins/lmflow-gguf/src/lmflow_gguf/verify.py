"""Whether a file says what its source says: the same tokens for a text, and nearly the same logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lmflow_core.api import ModelError, ModelSettings
from lmflow_gguf.model import LlamaCppLoader, LlamaCppModel
from lmflow_gguf.options import PLAIN
from lmflow_gguf.texts import read_text
from lmflow_transformers.api import CausalModel

TORTURE = (
    "one, two  spaces, a tab\tand\n\n\nthree newlines \n  indented\r\n don't DON'T we'Ve 1234567 3.14 १२३ "
    "x=+=-=> `code` "
    "žluťoučký кириллица עברית العربية 你好，世界 こんにちは 한국어 🚀👩\u200d👧 \u00a0 "
    "<|im_start|> </s> <s> [INST] "
)
_TOKENS = 128
# Mean divergence of the next token's distribution, in nats, above which a file is wrong rather than rough.
_PLAIN_LIMIT, _QUANTISED_LIMIT = 0.01, 1.0


def verify(file: Path, type_name: str, model: CausalModel) -> None:
    """Load a file with llama.cpp and compare it with its source.

    Raises:
        ModelError: the tokens of a text differ, or the logits do by more than the type explains.
    """
    loaded = LlamaCppLoader().open(str(file), ModelSettings(model=str(file)))
    _compare_tokens(loaded, model)
    model.load()
    loaded.load()
    (ids,) = model.tokenizer.encode([read_text(None)[:2000]], [False])
    ids = ids[: min(_TOKENS, model.context_length or _TOKENS)]
    divergence = mean_divergence(_logits_of_source(model, ids), _logits_of_file(loaded, ids))
    limit = _PLAIN_LIMIT if type_name in PLAIN else _QUANTISED_LIMIT
    if not divergence <= limit:
        raise ModelError(f"{file.name} predicts other tokens than its source: {divergence:.3f} nats apart, not {limit}")


def _compare_tokens(loaded: LlamaCppModel, model: CausalModel) -> None:
    (ours,) = loaded.tokenizer.encode([TORTURE], [False])
    (theirs,) = model.tokenizer.encode([TORTURE], [False])
    if ours != theirs:
        place = next((n for n, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), 0)
        found = loaded.tokenizer.decode(ours[place : place + 5])
        raise ModelError(
            f"llama.cpp splits text in another way than the source, from {found!r} on: the pre-tokenizer "
            "is not that of the model; name the right one with --pre-tokenizer"
        )


@torch.no_grad()
def _logits_of_source(model: CausalModel, ids: list[int]) -> np.ndarray:
    logits = model.base(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0]
    return logits.float().cpu().numpy()


def _logits_of_file(loaded: LlamaCppModel, ids: list[int]) -> np.ndarray:
    session = loaded.session(len(ids))
    session.evaluate(ids, outputs=True)
    return session.logits(len(ids)).copy()


def mean_divergence(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the mean Kullback-Leibler divergence of rows of logits, in nats."""
    expected, found = _log_softmax(expected), _log_softmax(found[:, : expected.shape[1]])
    return float((np.exp(expected) * (expected - found)).sum(-1).mean())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
