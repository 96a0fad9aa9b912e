"""A text far longer than the window: SmolLM2-135M's likelihood of it part by part, with attention sinks and without.

    python benchmarks/streaming.py --text wikitext-2-valid.txt

The first tokens of the longest article are read once for each row. "Everything" sees the whole text, which the model's
context holds; the other rows see a window alone, whose first tokens are sinks.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch

from lmflow_core.api import ModelSettings
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_streaming.decoder import open_window

MODEL = "smollm2-135m-instruct"
PART = 1024
# A heading of the first rank opens an article.
_ARTICLE = re.compile(r"\n (?== [^=].*? = \n)")


def main() -> None:
    """Read the text in every way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="the validation set of WikiText-2")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--sinks", type=int, nargs="*", default=[4, 1, 0])
    parser.add_argument("--parts", type=int, default=6, help=f"parts of {PART} tokens to read")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    model: Any = open_model(ModelSettings(model=MODEL), Catalogue.discover()).load()
    article = max(_ARTICLE.split(arguments.text.read_text(encoding="utf-8")), key=len)
    (ids,) = model.tokenizer.encode([article], [False])
    if len(ids) <= arguments.parts * PART:
        raise SystemExit(f"the longest article has {len(ids)} tokens")
    text = torch.tensor([ids[: arguments.parts * PART + 1]])
    ways = {
        "everything": (None, 0),
        **{f"{arguments.window}, {n} sinks": (arguments.window, n) for n in arguments.sinks},
    }
    rows = []
    for name, (size, sinks) in ways.items():
        print(f"reading with {name}", file=sys.stderr, flush=True)
        rows.append({"name": name, **_read(model, text, size, sinks)})
    print(json.dumps(rows, indent=2) if arguments.json else _table(rows))


@torch.inference_mode()
def _read(model: Any, text: torch.Tensor, size: int | None, sinks: int) -> dict[str, Any]:
    """Return the mean NLL of each part, in nats per token, and how much was dropped."""
    window = open_window(model, size, sinks)
    targets, nll, done = text[0, 1:], [], 0
    # Read a part at a time, as the logits of all tokens at once would take gigabytes.
    for piece in text[:, :-1].split(PART, dim=1):
        for logits in window.passes(piece, every=True):
            wanted = targets[done : done + len(logits)]
            nll.append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none"))
            done += len(logits)
    parts = [float(part.double().mean()) for part in torch.cat(nll).split(PART)]
    return {"nll": parts, "dropped": window.dropped}


def _table(rows: list[dict[str, Any]]) -> str:
    count = len(rows[0]["nll"])
    names = [f"{place * PART:,}–{(place + 1) * PART:,}" for place in range(count)]
    lines = [f"| window | {' | '.join(names)} | dropped |", "|---" * (count + 2) + "|"]
    for row in rows:
        parts = " | ".join(f"{nll:.2f}" for nll in row["nll"])
        lines.append(f"| {row['name']} | {parts} | {row['dropped']:,} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
