"""Time of a pass over a few tokens, in passes over one: with copies of the weights in oneDNN's order, and without.

    python benchmarks/few_rows.py --model smollm2-135m-instruct

Each pass goes on behind the same 200 tokens; the least of eight times counts.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any
from unittest.mock import patch

import torch

from lmflow_core.api import ModelSettings
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report.console import table
from lmflow_speculative.caching import CachedNetwork
from lmflow_transformers import linear

_BEHIND = list(range(100, 300))
_ROWS = (1, 2, 3, 4, 5, 7, 9, 13, 17)


@torch.inference_mode()
def seconds(model: Any) -> dict[int, float]:
    """Return the seconds of a pass by its number of tokens."""
    found = {}
    for rows in _ROWS:
        network = CachedNetwork(model.network, model.device)
        network.logits(_BEHIND, 1)
        times = []
        for attempt in range(8):
            fresh = [400 + attempt] * rows
            started = time.perf_counter()
            network.logits([*_BEHIND, *fresh], rows)
            times.append(time.perf_counter() - started)
        found[rows] = min(times)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    model = open_model(ModelSettings(model=arguments.model, device="cpu"), Catalogue.discover()).load()
    with patch.object(linear, "has_onednn", lambda: False):
        plain = seconds(model)
    quick = seconds(model)
    if arguments.json:
        print(json.dumps({"plain": plain, "copies": quick}, indent=2))
        return
    rows = [(str(n), f"{plain[n] * 1e3:.1f} ms", f"{quick[n] * 1e3:.1f} ms") for n in _ROWS]
    print(table(("TOKENS", "WITHOUT COPIES", "WITH COPIES"), rows))


if __name__ == "__main__":
    main()
