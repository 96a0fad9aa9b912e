"""Speed and memory of training a reward model: LMFlow against TRL, on the same pairs, from the same head.

    python benchmarks/reward_speed.py --model FOLDER --data PAIRS.json

Each contender trains for one epoch in a process of its own, one after the other: float32, all parameters, two threads,
batches of 4 pairs in the order of the file, sequences cut at 512 tokens, AdamW at 1e-5. TRL is given the ids that
LMFlow trains on, so it reads and cuts nothing itself. It is run with its defaults but for the number format, and also
without the activation checkpointing that they switch on, which is faster. Losses of each step stand side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from contenders import (
    THREADS,
    Clock,
    common_trl_options,
    logged_losses,
    peak_memory_bytes,
    run_worker,
    train_in_order,
)

BATCH, LENGTH, LR = 4, 512, 1e-5
CONTENDERS: dict[str, bool | None] = {
    "LMFlow": None,
    "TRL": False,
    "TRL, checkpointing": True,
}


def main() -> None:
    """Run every contender and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a model that predicts tokens")
    parser.add_argument("--data", type=Path, required=True, help="preference pairs: a JSON list")
    parser.add_argument("--pairs", type=int, default=48, help="how many that differ within 512 tokens")
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS), help="run these")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(THREADS))
    if arguments.worker:
        print(json.dumps(_trained(arguments.worker, arguments.model, arguments.data)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model, pairs = Path(folder) / "model", Path(folder) / "pairs.json"
        _with_a_head(arguments.model, model)
        pairs.write_text(json.dumps(_encoded(model, arguments.data, arguments.pairs)))
        results = [run_worker(__file__, name, {"--model": model, "--data": pairs}) for name in arguments.only]
    print(json.dumps(results, indent=2) if arguments.json else _table(results))


def _with_a_head(source: Path, folder: Path) -> None:
    """Write a model with a new head, from which all begin, and a padding token that ends no text."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    network: Any = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.pad_token = tokenizer.unk_token or tokenizer.bos_token
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    network.config.pad_token_id = tokenizer.pad_token_id
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _encoded(model: Path, data: Path, count: int) -> list[dict[str, list[int]]]:
    """Return pairs as ids, cut, those whose answers are the same left out."""
    from lmflow_core.api import ModelSettings
    from lmflow_core.contracts.settings import DataSettings
    from lmflow_core.data.dataset import DatasetMaker
    from lmflow_core.models.opening import open_model
    from lmflow_core.plugins.registry import Catalogue

    catalogue = Catalogue.discover()
    opened = open_model(ModelSettings(model=str(model), device="cpu"), catalogue)
    settings = DataSettings(dataset=(data,), max_length=LENGTH, length_policy="truncate", cache=False)
    rows = DatasetMaker(settings, opened, catalogue, accepted=("preference",)).make().rows
    both = [[list(sequence.input_ids) for sequence in example.sequences] for example in rows]
    kept = [{"chosen_ids": chosen, "rejected_ids": rejected} for chosen, rejected in both if chosen != rejected]
    if len(kept) < count:
        raise SystemExit(f"{data} holds {len(kept)} pairs that differ, not {count}")
    return kept[:count]


def _trained(name: str, model: Path, file: Path) -> dict[str, Any]:
    import torch

    torch.set_num_threads(THREADS)
    pairs = json.loads(file.read_text(encoding="utf-8"))
    checkpointing = CONTENDERS[name]
    run = _by_us(model, pairs) if checkpointing is None else _by_trl(model, pairs, checkpointing)
    return {
        **run,
        "pairs_per_second": len(pairs) / run["seconds"],
        "pairs_per_cpu_second": len(pairs) / run["cpu_seconds"],
        "peak_memory_bytes": peak_memory_bytes(),
    }


def _by_us(model: Path, pairs: list[dict[str, list[int]]]) -> dict[str, Any]:
    from lmflow_core.api import EncodedExample, EncodedSequence, TrainingSettings
    from lmflow_core.testing.jobs import make_job
    from lmflow_reward.objective import RewardObjective

    examples = [
        EncodedExample(tuple(EncodedSequence(ids, ids) for ids in (pair["chosen_ids"], pair["rejected_ids"])))
        for pair in pairs
    ]
    settings = TrainingSettings(
        lr=LR, lr_scheduler_type="constant", warmup_ratio=0, batch_size=BATCH, epochs=1, logging_steps=1
    )
    objective = RewardObjective()
    job = make_job(model, Path(tempfile.mkdtemp()) / "c", settings, examples, objective=objective, dtype="float32")
    train_in_order()
    clock = Clock()
    report = objective.train(job)
    return {**clock.read(), "losses": [point.value for point in report.training["loss"]]}


def _by_trl(model: Path, pairs: list[dict[str, list[int]]], checkpointing: bool) -> dict[str, Any]:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    config = RewardConfig(
        max_length=LENGTH,
        disable_dropout=True,
        train_sampling_strategy="sequential",
        **common_trl_options(BATCH, LR, checkpointing),
    )
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(model),
        args=config,
        train_dataset=Dataset.from_list(pairs),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    clock = Clock()
    trainer.train()
    return {**clock.read(), "losses": logged_losses(trainer)}


def _table(results: list[dict[str, Any]]) -> str:
    lines = ["| | pairs/s | pairs per CPU second | peak GB | losses |", "|---|---|---|---|---|"]
    for result in results:
        cells = (
            result["name"],
            f"{result['pairs_per_second']:.3f}",
            f"{result['pairs_per_cpu_second']:.3f}",
            f"{result['peak_memory_bytes'] / 1e9:.2f}",
            " ".join(f"{loss:.4f}" for loss in result["losses"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
