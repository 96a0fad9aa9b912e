"""What each part of the training engine brings: speed and memory as the parts are added one by one.

    python benchmarks/training_ablation.py --data ROWS.json

Each stage trains SmolLM2-135M-Instruct on the same batches in a process of its own, with the same short loop: float32,
batches of 8, rows cut at 512 tokens. The first stage is what a plain loop over transformers does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m-instruct"
BATCH, LENGTH, CHUNK, PASS = 8, 512, 256, 1024
STAGES: dict[str, tuple[str, ...]] = {
    "padded, all logits": (),
    "+ packed end to end": ("packed",),
    "+ loss at labels, in chunks": ("packed", "label-only"),
    "+ norms and MLPs recomputed": ("packed", "label-only", "lean"),
    "+ state first, memory kept": ("packed", "label-only", "lean", "memory"),
    "+ 1,024 tokens at a time": ("packed", "label-only", "lean", "memory", "passes"),
    "  with activation checkpointing": ("packed", "label-only", "memory", "passes", "checkpointing"),
    "  with LISA, 2 layers": ("packed", "label-only", "lean", "memory", "passes", "lisa"),
}


def main() -> None:
    """Run every stage and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="alpaca rows: a JSON list")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stage", choices=STAGES, help="run this stage alone, in this process")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if arguments.stage:
        print(json.dumps(_train(STAGES[arguments.stage], arguments.data, arguments.rows)))
        return
    results = [{"name": name, **_apart(name, arguments)} for name in STAGES]
    print(json.dumps(results, indent=2) if arguments.json else _table(results))


def _apart(stage: str, arguments: argparse.Namespace) -> dict[str, Any]:
    print(f"running {stage.strip()}", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--data", str(arguments.data), "--rows", str(arguments.rows)]
    finished = subprocess.run([*command, "--stage", stage], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def _train(parts: tuple[str, ...], data: Path, count: int) -> dict[str, Any]:
    import torch

    from lmflow_transformers.memory import keep_freed_memory, take_into_memory
    from lmflow_transformers.training.optimizers import allocate_state

    network, rows = _opened(data, count)
    if "memory" in parts:
        keep_freed_memory()
        take_into_memory(network)
    if "lisa" in parts:
        for layer in network.model.layers[2:]:
            layer.requires_grad_(False)
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-5, fused=True)
    loss = 0.0
    with _set_up(network, parts):
        started = time.perf_counter()
        if "memory" in parts:
            allocate_state(optimizer)
        for batch in batches:
            loss = _loss_after_backward(network, batch, parts)
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        seconds = time.perf_counter() - started
    return {
        "tokens_per_second": sum(row.tokens for row in rows) / seconds,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "loss": loss,
    }


def _opened(data: Path, count: int) -> tuple[Any, list[Any]]:
    """Return the network, ready to train, and the encoded rows."""
    from lmflow_core.api import ModelSettings
    from lmflow_core.data.encoding import Encoder
    from lmflow_core.data.examples import ExampleReader
    from lmflow_core.data.preparation import Preparer
    from lmflow_core.models.opening import open_model
    from lmflow_core.plugins.registry import Catalogue
    from lmflow_core.templates.choosing import load_template

    catalogue = Catalogue.discover()
    opened = open_model(ModelSettings(model=MODEL), catalogue)
    encoder = Encoder(opened.model.tokenizer, load_template("smollm2", opened.model.tokenizer, catalogue))
    examples = list(ExampleReader(catalogue).read([data]))[:count]
    rows = Preparer(encoder, LENGTH, "truncate").prepare(examples)
    network = opened.load().network  # type: ignore[attr-defined]
    return network.train(), list(rows)


@contextmanager
def _set_up(network: Any, parts: tuple[str, ...]) -> Iterator[None]:
    from lmflow_transformers.attention import SdpaAttention, using_attention
    from lmflow_transformers.lean import lean_layers

    with ExitStack() as stack:
        if "packed" in parts:
            stack.enter_context(using_attention(network, SdpaAttention().implementation("cpu")))
        if "lean" in parts:
            stack.enter_context(lean_layers(network))
        if "checkpointing" in parts:
            network.gradient_checkpointing_enable({"use_reentrant": False})
        yield


def _loss_after_backward(network: Any, rows: list[Any], parts: tuple[str, ...]) -> float:
    """Add the gradients of the mean loss over the labelled tokens of a batch, and return it."""
    import torch

    from lmflow_transformers.api import collate, summed_cross_entropy
    from lmflow_transformers.training.micro_batches import micro_batches

    if "packed" not in parts:
        return _of_padded(network, rows)
    batches = [collate(each) for each in micro_batches(rows, PASS if "passes" in parts else None)]
    count = sum(int(batch.labelled.sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        if "label-only" in parts:
            loss = summed_cross_entropy(network, batch, CHUNK) / count
        else:
            logits = network(**batch.inputs[0], use_cache=False).logits[0].float()
            loss = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum") / count
        loss.backward()
        total += float(loss.detach())
    return total


def _of_padded(network: Any, rows: list[Any]) -> float:
    import torch

    inputs = _padded([row.sequences[0] for row in rows])
    targets = inputs.pop("targets")
    logits = network(**inputs, use_cache=False).logits.flatten(0, 1).float()
    summed = torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="sum")
    loss = summed / int((targets >= 0).sum())
    loss.backward()
    return float(loss.detach())


def _padded(batch: list[Any]) -> dict[str, Any]:
    import torch

    longest = max(len(row.input_ids) for row in batch)
    ids, labels, mask = (torch.zeros(len(batch), longest, dtype=torch.long) for _ in range(3))
    labels -= 100
    for number, row in enumerate(batch):
        length = len(row.input_ids)
        ids[number, :length] = torch.tensor(list(row.input_ids))
        labels[number, : length - 1] = torch.tensor(list(row.labels[1:]))
        mask[number, :length] = 1
    return {"input_ids": ids, "attention_mask": mask, "targets": labels}


def _table(results: list[dict[str, Any]]) -> str:
    lines = [f"{'':34}{'tokens/s':>10}{'peak GB':>10}{'last loss':>11}"]
    for result in results:
        memory = result["peak_memory_bytes"] / 1e9
        lines.append(f"{result['name']:34}{result['tokens_per_second']:10.1f}{memory:10.2f}{result['loss']:11.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
