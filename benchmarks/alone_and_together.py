"""Whether answers written together are those written alone, token by token, with a real model and real prompts.

    python benchmarks/alone_and_together.py --data ROWS.json

Each of 200 instructions is answered greedily, the first 50 also sampled, each with a seed of its own: first alone, then
all in one batch of 16 at a time. Exits with 1 when an answer differs, and names it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmflow_core.contracts.decoder import BatchLimits, DecodingRequest
from lmflow_core.contracts.examples import Message
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.data.encoding import Encoder
from lmflow_core.generation.answers import encoded_prompt, own_stops, stop_tokens
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report.console import table
from lmflow_core.templates.choosing import choose_template
from lmflow_core.testing.batches import Asked, ids_of, run_batch
from lmflow_transformers.options import SamplingOptions
from lmflow_transformers.sampling import SamplingDecoder

_SAMPLED = SamplingOptions(temperature=0.8, top_p=0.95)
_SAMPLES = 50


def main() -> None:
    """Write all answers in both ways and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="alpaca rows: a JSON list")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=32, help="longest answer")
    parser.add_argument("--at-a-time", type=int, default=16)
    arguments = parser.parse_args()
    rows = json.loads(arguments.data.read_text(encoding="utf-8"))[: arguments.prompts]
    texts = [f"{row['instruction']} {row['input']}".strip() for row in rows]
    model, asked = _asked(arguments.model, texts, arguments.tokens)
    alone, took_alone = _timed(lambda: [ids_of(decoder.decode(model, request)) for request, decoder in asked])
    batch: Any = SamplingDecoder().open_batch(model, BatchLimits(answers=arguments.at_a_time))
    together, took_together = _timed(lambda: [ids_of(steps) for steps in run_batch(batch, asked)])
    tokens = sum(map(len, alone))
    counts = [(f"{len(alone)} alone", tokens, f"{tokens / took_alone:.1f}")]
    counts += [(f"{arguments.at_a_time} together", sum(map(len, together)), f"{tokens / took_together:.1f}")]
    print(table(("ANSWERS", "TOKENS", "TOKENS/S"), counts))
    different = [place for place, pair in enumerate(zip(alone, together, strict=True)) if pair[0] != pair[1]]
    print(f"{len(alone) - len(different)} of {len(alone)} are the same, token by token")
    if different:
        raise SystemExit(f"these differ: {', '.join(map(str, different))}")


def _asked(name: str, texts: list[str], tokens: int) -> tuple[Any, Asked]:
    """Return the model, and the request and decoder of each answer."""
    catalogue = Catalogue.discover()
    opened = open_model(ModelSettings(model=name, device="cpu"), catalogue)
    _, template = choose_template(None, opened, catalogue)
    model: Any = opened.load()
    stop_ids = stop_tokens(own_stops(template, model.tokenizer), model.tokenizer)
    encoder = Encoder(model.tokenizer, template)
    prompts = [encoded_prompt(encoder, [Message("user", text)]).input_ids for text in texts]
    requests = [DecodingRequest(prompt, tokens, stop_ids, seed) for seed, prompt in enumerate(prompts)]
    greedy, sampled = SamplingDecoder(), SamplingDecoder(_SAMPLED)
    return model, [(request, greedy) for request in requests] + [(request, sampled) for request in requests[:_SAMPLES]]


def _timed(action: Callable[[], list[list[int]]]) -> tuple[list[list[int]], float]:
    started = time.perf_counter()
    return action(), time.perf_counter() - started


if __name__ == "__main__":
    main()
