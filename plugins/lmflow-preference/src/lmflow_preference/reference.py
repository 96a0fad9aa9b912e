"""Log-probabilities of a reference: computed before training, once for the same weights and data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from lmflow_core.api import EncodedDataset, JobServices, ModelError, atomic_cache_folder, cache_root
from lmflow_transformers.api import CausalModel, TorchJob, check_vocabulary, measure_sequences, sequence_logprobs

FLAG = "--reference-model"
_FORMAT, _FILE, _SAMPLES = 1, "logprobs.json", 256
_Logprobs = list[tuple[float, ...]]


def check_reference(reference: str | None, model: CausalModel, services: JobServices) -> None:
    """Check that a reference, where one is named, means the same by each id.

    Raises:
        ModelError: it cannot be opened, or has another vocabulary.
    """
    if reference is not None:
        check_vocabulary(model, opened_reference(reference, model, services), FLAG)


def reference_logprobs(job: TorchJob, reference: str | None, data: Sequence[EncodedDataset]) -> list[_Logprobs]:
    """Return the log-probability of each sequence of each example of some data sets.

    The model of the job has not been trained yet, in a resumed run neither: its checkpoint is read later. So what it
    is before training needs no copy. Another reference gives its memory back before training begins.

    Args:
        job: about to train.
        reference: what ``--model`` could name; None is the model itself.
        data: examples by position.
    """
    if reference is None:
        # Where the tuner can leave out what it adds, what it adds costs nothing.
        with job.tuner.reference(job.model) or nullcontext():
            return [_kept(job, job.model, examples) for examples in data]
    other = opened_reference(reference, job.model, job.services)
    other.load()
    try:
        return [_kept(job, other, examples) for examples in data]
    finally:
        other.network = None


def opened_reference(reference: str, model: CausalModel, services: JobServices) -> CausalModel:
    """Return the open model that a reference names, beside the one that trains.

    Raises:
        ModelError: it cannot be opened, or runs elsewhere.
    """
    other = services.open_model(reference, beside=model)
    if not isinstance(other, CausalModel):
        raise ModelError(f"{FLAG} {reference} does not run in torch: choose a model that does")
    return other


def _kept(job: TorchJob, model: CausalModel, examples: EncodedDataset) -> _Logprobs:
    """Return what was computed before for the same weights and examples, or compute and keep it."""
    if model.plan.sharded:
        return measure_sequences(job, examples, sequence_logprobs, model)  # no process sees the weights
    folder = cache_root() / "reference" / _key(job, model, examples)
    # One process's answer counts for all: caches of machines differ, and all must take part in the computing.
    before: _Logprobs | None = job.engine.all_gather(_read(folder, len(examples)))[0]
    if before is not None:
        return before
    logprobs = measure_sequences(job, examples, sequence_logprobs, model)
    if job.world.is_main:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_cache_folder(folder) as scratch:
            (scratch / _FILE).write_text(json.dumps(logprobs), encoding="utf-8")
    return logprobs


def _read(folder: Path, count: int) -> _Logprobs | None:
    try:
        rows = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        logprobs = [tuple(map(float, row)) for row in rows]
    except (OSError, ValueError, TypeError):
        return None
    return logprobs if len(logprobs) == count else None


def _key(job: TorchJob, model: CausalModel, examples: EncodedDataset) -> str:
    """Return a digest of all that the log-probabilities depend on."""
    digest = hashlib.sha256()
    computing = (_FORMAT, torch.__version__, str(model.device), str(model.plan), job.attention)
    digest.update(repr((*computing, model.base.config.to_json_string())).encode())
    for name, weights in model.network.state_dict().items():
        digest.update(f"{name} {_told(weights)}\n".encode())
    for position in range(len(examples)):
        for sequence in examples[position].sequences:
            digest.update(repr((list(sequence.input_ids), list(sequence.labels), sequence.media)).encode())
    return digest.hexdigest()[:32]


def _told(weights: Any) -> str:
    """Return what tells a weight from another: its form, the sum of its numbers, and some of them."""
    if not isinstance(weights, torch.Tensor):
        return repr(weights)
    flat = weights.detach().flatten()
    some = flat[:: max(1, len(flat) // _SAMPLES)].double().tolist()
    return f"{weights.dtype} {tuple(weights.shape)} {float(flat.sum(dtype=torch.float64))} {some}"
