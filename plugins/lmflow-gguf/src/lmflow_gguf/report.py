"""What a type costs and brings: size, NLL on a text and its change, speed, load time. All by llama.cpp."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lmflow_core.api import DecodingRequest, ModelSettings
from lmflow_gguf.decoder import LlamaCppDecoder
from lmflow_gguf.model import LlamaCppLoader, LlamaCppModel
from lmflow_gguf.options import LlamaCppOptions
from lmflow_gguf.texts import read_text, scored, windows

_WINDOW = 512
_WRITTEN = 64
_PROMPT = 64


def report(files: Mapping[str, Path], source: Path, text: Path | None) -> list[Mapping[str, object]]:
    """Return a row for each file.

    Args:
        files: the files by type.
        source: the F32 file that changes are measured against.
        text: what the NLL is measured on.
    """
    content = read_text(text)
    baseline = _measured("F32", source, content)
    rows = [baseline if file == source else _measured(name, file, content) for name, file in files.items()]
    if source not in files.values():
        rows.insert(0, {**baseline, "type": "(F32)"})
    return [_with_change(row, float(str(baseline["nll"]))) for row in rows]


def _measured(name: str, file: Path, text: str) -> dict[str, object]:
    start = time.perf_counter()
    model = LlamaCppLoader().open(str(file), ModelSettings(model=str(file)))
    model.load()
    model.session(_PROMPT + _WRITTEN).evaluate(model.tokenizer.encode(["a"], [False])[0])
    loaded = time.perf_counter() - start
    examples = [scored(part) for part in windows(model.tokenizer, text, _WINDOW, model.context_length)]
    scores = list(model.score(examples))
    nll = sum(score.nll for score in scores) / sum(score.tokens for score in scores)
    return {
        "type": name,
        "bytes": file.stat().st_size,
        "nll": round(nll, 5),
        "tokens_per_second": round(_speed(model, examples[0].input_ids[:_PROMPT]), 1),
        "load_seconds": round(loaded, 2),
    }


def _speed(model: LlamaCppModel, prompt: Sequence[int]) -> float:
    """Return how many tokens are written in a second, the prompt's time left out."""
    decoder = LlamaCppDecoder(LlamaCppOptions())
    steps = decoder.decode(model, DecodingRequest(prompt, _WRITTEN))
    next(steps)
    start = time.perf_counter()
    written = sum(len(step.ids) for step in steps)
    return written / (time.perf_counter() - start) if written else 0.0


def _with_change(row: Mapping[str, object], baseline: float) -> Mapping[str, object]:
    nll = float(str(row["nll"]))
    change = f"{(nll / baseline - 1) * 100:+.2f}%"
    return {key: value for name, cell in row.items() for key, value in _cells(name, cell, change)}


def _cells(name: str, cell: object, change: str) -> list[tuple[str, object]]:
    return [(name, cell), ("change", change)] if name == "nll" else [(name, cell)]
