"""Speed and memory of learning from pairs: LMFlow's ``dpo`` against TRL's ``DPOTrainer``, on the same pairs.

    python benchmarks/preference_speed.py --data PAIRS.json

Each contender trains SmolLM2-135M-Instruct for one epoch in a process of its own, one after the other: float32, two
threads, batches of 4 pairs, answers cut at 512 tokens. The time is that from pairs to the trained model, with the pass
of the reference, which both compute once; of TRL it holds tokenising too, which takes a second. The rows are sharegpt
conversations with ``chosen`` and ``rejected``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from contenders import common_trl_options, logged_losses, losses_of, peak_memory_bytes, run_worker

BATCH, LENGTH = 4, 512
ALIKE = ["--lr-scheduler-type", "constant", "--warmup-ratio", "0", "--logging-steps", "1", "--epochs", "1"]
LORA = ["--tuner", "lora", "--lora-r", "8", "--lora-alpha", "32", "--lora-dropout", "0"]
RATES = {"full": 1e-6, "LoRA": 1e-5}
CONTENDERS = (
    "LMFlow full",
    "LMFlow full, prompts not shared",
    "TRL full",
    "TRL full, checkpointing",
    "LMFlow LoRA (r 8)",
    "LMFlow LoRA (r 8), prompts not shared",
    "TRL LoRA (r 8)",
)
_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


def main() -> None:
    """Run every contender and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="pairs: a JSON list")
    parser.add_argument("--model", help="a folder; SmolLM2-135M-Instruct of lmflow-smollm2 when left out")
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, help="run these")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    model = arguments.model or _smollm2()
    if arguments.worker:
        work = _with_lmflow if arguments.worker.startswith("LMFlow") else _with_trl
        print(json.dumps(work(arguments.worker, model, arguments.data)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "pairs.json"
        rows.write_text(json.dumps(json.loads(arguments.data.read_text(encoding="utf-8"))[: arguments.pairs]))
        results = [run_worker(__file__, name, {"--data": rows, "--model": model}) for name in arguments.only]
    print(json.dumps(results, indent=2) if arguments.json else _table(results))


def _smollm2() -> str:
    from lmflow_smollm2.loader import cached_folder

    return str(cached_folder())


def _result(pairs: int, seconds: float, losses: list[float]) -> dict[str, Any]:
    return {
        "pairs_per_second": pairs / seconds,
        "cpu_seconds": time.process_time(),
        "peak_memory_bytes": peak_memory_bytes(),
        "losses": losses,
    }


def _with_lmflow(name: str, model: str, rows: Path) -> dict[str, Any]:
    from lmflow_core.cli.main import run
    from lmflow_preference.dpo import DpoObjective
    from lmflow_transformers import beginnings

    if "not shared" in name:
        beginnings.SHORTEST = sys.maxsize
    trained, seconds = DpoObjective.train, []

    def timed(self: DpoObjective, job: Any) -> Any:
        started = time.perf_counter()
        try:
            return trained(self, job)
        finally:
            seconds.append(time.perf_counter() - started)

    DpoObjective.train = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        flags = [
            "finetune",
            "--model",
            model,
            "--dataset",
            str(rows),
            "--objective",
            "dpo",
            "--output",
            f"{folder}/out",
        ]
        flags += ["--batch-size", str(BATCH), "--max-length", str(LENGTH), "--length-policy", "truncate", *ALIKE]
        flags += ["--lr", str(_rate(name)), *(LORA if "LoRA" in name else []), "--device", "cpu"]
        if run(flags):
            raise SystemExit("lmflow finetune failed")
        losses = losses_of(Path(folder, "out"))
    return _result(len(json.loads(rows.read_text())), seconds[0], losses)


def _with_trl(name: str, model: str, rows: Path) -> dict[str, Any]:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    pairs = [_conversational(row) for row in json.loads(rows.read_text(encoding="utf-8"))]
    lora = LoraConfig(r=8, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    common = common_trl_options(BATCH, _rate(name), "checkpointing" in name)
    config = DPOConfig(max_length=LENGTH, precompute_ref_log_probs=True, **common)
    network, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    started = time.perf_counter()
    trainer = DPOTrainer(
        model=network,
        args=config,
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
        peft_config=lora if "LoRA" in name else None,
    )
    trainer.train()
    seconds = time.perf_counter() - started
    return _result(len(pairs), seconds, logged_losses(trainer))


def _rate(name: str) -> float:
    return next(rate for kind, rate in RATES.items() if kind in name)


def _conversational(row: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    turns = {"prompt": row["conversations"], "chosen": [row["chosen"]], "rejected": [row["rejected"]]}
    return {
        name: [{"role": _ROLES[turn["from"]], "content": turn["value"]} for turn in several]
        for name, several in turns.items()
    }


def _table(results: list[dict[str, Any]]) -> str:
    lines = [f"{'':40}{'pairs/s':>9}{'CPU s':>8}{'peak GB':>9}  losses: first, last"]
    for result in results:
        memory, losses = result["peak_memory_bytes"] / 1e9, result["losses"]
        figures = f"{result['pairs_per_second']:9.3f}{result['cpu_seconds']:8.0f}{memory:9.2f}"
        lines.append(f"{result['name']:40}{figures}  {losses[0]:.4f}, {losses[-1]:.4f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
