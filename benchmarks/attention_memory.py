"""Memory and speed of attention by length: one decoder layer of SmolLM2-135M's shape, one forward and backward pass.

    python benchmarks/attention_memory.py

Each measurement is a process of its own. "Peak" is how far the pass raised the process's resident memory. Times are the
best of three passes: of the attention alone (forward and backward, float32, causal), and of the layer.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

ATTENTIONS = ("flash", "eager")
LENGTHS = (1024, 2048, 4096, 8192, 16384)
EAGER_LIMIT = 4096  # eager attention at 8,192 would take some 12 GB


def main() -> None:
    """Measure every length with every attention and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(_measure(arguments.worker[0], int(arguments.worker[1]), arguments.threads)))
        return
    results = []
    for length in LENGTHS:
        for attention in ATTENTIONS:
            if attention == "flash" or length <= EAGER_LIMIT:
                command = [sys.executable, __file__, "--threads", str(arguments.threads)]
                output = subprocess.run([*command, "--worker", attention, str(length)], check=True, capture_output=True)
                results.append(json.loads(output.stdout.splitlines()[-1]))
                print(results[-1], file=sys.stderr, flush=True)
    print(json.dumps(results, indent=2) if arguments.json else _table(results))


def _measure(attention: str, length: int, threads: int) -> dict[str, Any]:
    import torch
    from transformers import LlamaConfig, LlamaModel

    from lmflow_flash_attention.attention import FlashAttention

    torch.set_num_threads(threads)
    config = LlamaConfig(
        vocab_size=64, hidden_size=576, intermediate_size=1536, num_hidden_layers=1, num_attention_heads=9,
        num_key_value_heads=3, head_dim=64, max_position_embeddings=length,
    )  # fmt: skip
    network = LlamaModel(config)
    network.set_attn_implementation(FlashAttention().implementation("cpu") if attention == "flash" else "eager")
    _pass(network, 64)
    before = _peak_bytes()
    first = _pass(network, length)
    peak = _peak_bytes() - before
    repeats = 3 if length <= EAGER_LIMIT else 1
    seconds = min([first, *(_pass(network, length) for _ in range(repeats - 1))])
    alone = min(_attention_pass(network, length) for _ in range(repeats))
    return {
        "attention": attention,
        "length": length,
        "peak_bytes": peak,
        "layer_seconds": seconds,
        "attention_seconds": alone,
    }


def _pass(network: Any, length: int) -> float:
    import torch

    ids = torch.arange(length)[None] % 64
    started = time.perf_counter()
    network(input_ids=ids, use_cache=False).last_hidden_state.square().mean().backward()
    return time.perf_counter() - started


def _attention_pass(network: Any, length: int) -> float:
    """Return the seconds of attention alone, forward and backward, under the function that the network uses."""
    import torch
    from transformers import AttentionInterface
    from transformers.models.llama.modeling_llama import eager_attention_forward

    name = network.config._attn_implementation
    attend = eager_attention_forward if name == "eager" else AttentionInterface()[name]
    layer = network.layers[0].self_attn
    query, key, value = (torch.randn(1, heads, length, 64, requires_grad=True) for heads in (9, 3, 3))
    mask = torch.full((length, length), float("-inf")).triu(1)[None, None] if name == "eager" else None
    started = time.perf_counter()
    attend(layer, query, key, value, mask, scaling=0.125, dropout=0.0)[0].sum().backward()
    return time.perf_counter() - started


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _table(results: list[dict[str, Any]]) -> str:
    found = {(row["attention"], row["length"]): row for row in results}
    heads = ("peak MB, flash", "eager", "attention s, flash", "eager", "ratio", "layer s, flash", "eager", "ratio")
    lines = [f"| tokens | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for length in LENGTHS:
        flash, eager = found["flash", length], found.get(("eager", length))
        cells = [f"{flash['peak_bytes'] / 1e6:.0f}", f"{eager['peak_bytes'] / 1e6:.0f}" if eager else ""]
        for what in ("attention_seconds", "layer_seconds"):
            cells += [
                f"{flash[what]:.2f}",
                *((f"{eager[what]:.2f}", f"{eager[what] / flash[what]:.2f}") if eager else ("", "")),
            ]
        lines.append(f"| {length:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
