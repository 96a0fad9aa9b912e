"""Beyond the trained length: SmolLM2-135M's likelihood of the same tokens, unscaled and with each position scaling.

    python benchmarks/context_extension.py --text wikitext-2-valid.txt

The tokens from 8,192 to 12,288 of the longest articles are scored. "In range" gives them 8,192 positions: the window
slides, so that the first 4,096 tokens are forgotten. Every other row gives them the whole article, at positions the
model was never trained on, first as it is, then with each scheme at factor 2.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmflow_core.api import IGNORE, EncodedSequence, ModelSettings
from lmflow_core.contracts.position_scaling import PositionScalingSpec, ScaledPositions
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue

MODEL = "smollm2-135m-instruct"
TRAINED, LENGTH, FACTOR = 8192, 12288, 2.0
# A heading of the first rank opens an article.
_ARTICLE = re.compile(r"\n (?== [^=].*? = \n)")
SCHEMES = ("dynamic-ntk", "yarn", "ntk", "linear", "llama3", "longrope")


def main() -> None:
    """Score every document in every way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="the validation set of WikiText-2")
    parser.add_argument("--documents", type=int, default=1, help="articles to score")
    parser.add_argument("--only", help="run rows whose name holds this text")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    documents = _documents(arguments.text, arguments.documents)
    ways: dict[str, str | None] = {"in range (8,192 positions)": None, "unscaled": None, **{s: s for s in SCHEMES}}
    results = []
    for name, scheme in ways.items():
        if arguments.only is None or arguments.only in name:
            print(f"running {name}", file=sys.stderr, flush=True)
            forget = LENGTH - TRAINED if name.startswith("in range") else 0
            results.append({"name": name, **_score(documents, scheme, forget)})
            print(results[-1], file=sys.stderr, flush=True)
    print(json.dumps(results, indent=2) if arguments.json else _table(results))


def _documents(text: Path, count: int) -> list[list[int]]:
    """Return the first tokens of the longest articles. Wikitext's own breaks and spaces are left as they are."""
    tokenizer = open_model(ModelSettings(model=MODEL), Catalogue.discover()).model.tokenizer
    articles = sorted(_ARTICLE.split(text.read_text(encoding="utf-8")), key=len, reverse=True)[:count]
    encoded = tokenizer.encode(articles, [False] * count)
    if any(len(ids) < LENGTH for ids in encoded):
        raise SystemExit(f"{text} has fewer than {count} articles of {LENGTH} tokens")
    return [ids[:LENGTH] for ids in encoded]


def _score(documents: list[list[int]], scheme: str | None, forget: int) -> dict[str, Any]:
    """Return the mean NLL of the last tokens, in nats, over the documents without their first ``forget`` tokens."""
    catalogue = Catalogue.discover()
    model: Any = open_model(ModelSettings(model=MODEL), catalogue).model
    if scheme is not None:
        spec = catalogue.of(PositionScalingSpec).spec(scheme)
        function = catalogue.of(PositionScalingSpec).load(scheme)
        positions = ScaledPositions(scheme, function, FACTOR, spec.options() if spec.options else None)
        model.accept(replace(model.plan, positions=positions))
    model.load()
    rows = [EncodedSequence(ids[forget:], [*([IGNORE] * (TRAINED - forget)), *ids[TRAINED:]]) for ids in documents]
    started = time.perf_counter()
    scores = list(model.score(rows))
    nll = math.fsum(score.nll for score in scores) / sum(score.tokens for score in scores)
    return {"nll": nll, "perplexity": math.exp(nll), "seconds": time.perf_counter() - started}


def _table(results: list[dict[str, Any]]) -> str:
    reference = results[0]["nll"]
    lines = ["| | NLL (nats per token) | perplexity | against in range | seconds |", "|---|---|---|---|---|"]
    for row in results:
        change = row["nll"] / reference - 1
        lines.append(
            f"| {row['name']} | {row['nll']:.4f} | {row['perplexity']:.2f} | {change:+.1%} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
