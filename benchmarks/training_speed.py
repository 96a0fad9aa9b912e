"""Speed and memory of training: LMFlow against TRL (and LLaMA-Factory where it is installed), on the same rows.

    python benchmarks/training_speed.py --data ROWS.json

Each contender trains SmolLM2-135M-Instruct for two epochs in a process of its own, one after the other: float32,
batches of 8, rows cut at 512 tokens. Tokens per second are real tokens, padding not counted. The limit is the time this
machine needs for the matrix products of full training alone, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m-instruct"
BATCH, LENGTH = 8, 512
OURS: dict[str, list[str]] = {
    "LMFlow full": ["--tuner", "full"],
    "LMFlow full, checkpointing": ["--tuner", "full", "--gradient-checkpointing"],
    "LMFlow LISA (2 layers)": ["--tuner", "lisa"],
    "LMFlow LISA, embeddings frozen": ["--tuner", "lisa", "--lisa-freeze-embeddings"],
    "LMFlow LoRA (r 8)": ["--tuner", "lora"],
    "LMFlow LoRA (r 128)": ["--tuner", "lora", "--lora-r", "128", "--lora-dropout", "0"],
}
TRL: dict[str, dict[str, Any]] = {
    "TRL full": {},
    "TRL full, packed": {"packing": True},
    "TRL LoRA (r 8)": {"lora": True},
}


def main() -> None:
    """Run every contender and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="alpaca rows: a JSON list")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--only", help="run contenders whose name holds one of these texts, with commas between")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if arguments.worker:
        print(json.dumps(_train_with_trl(TRL[arguments.worker], arguments.data, arguments.epochs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        rows.write_text(json.dumps(json.loads(arguments.data.read_text(encoding="utf-8"))[: arguments.rows]))
        results = _run_all(rows, Path(folder), arguments.only, arguments.epochs)
    print(json.dumps(results, indent=2) if arguments.json else _table(results))


def _run_all(rows: Path, folder: Path, only: str | None, epochs: int) -> list[dict[str, Any]]:
    contenders: dict[str, Callable[[], dict[str, Any]]] = {"limit of the matrix products": _matrix_limit}
    for name in OURS:
        contenders[name] = lambda name=name: _run_ours(OURS[name], rows, folder / "out", epochs)
    for name in TRL:
        contenders[name] = lambda name=name: _run_trl(name, rows, epochs)
    if shutil.which("llamafactory-cli"):
        contenders["LLaMA-Factory full"] = lambda: _run_llama_factory(rows, folder, epochs)
    results = []
    for name, run in contenders.items():
        if only is None or any(text in name for text in only.split(",")):
            print(f"running {name}", file=sys.stderr, flush=True)
            results.append({"name": name, **run()})
    return results


def _run_ours(flags: list[str], rows: Path, output: Path, epochs: int) -> dict[str, Any]:
    command = ["lmflow", "finetune", "--model", MODEL, "--dataset", str(rows), "--output", str(output), "--overwrite"]
    command += ["--batch-size", str(BATCH), "--max-length", str(LENGTH), "--length-policy", "truncate", "--json"]
    record = json.loads(_output([*command, "--epochs", str(epochs), "--logging-steps", "1", *flags]))
    return {
        "tokens_per_second": record["tokens_per_second"],
        "peak_memory_bytes": record["peak_memory_bytes"],
        "loss": record["losses"][-1][1],
    }


def _run_trl(name: str, rows: Path, epochs: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--worker", name, "--data", str(rows), "--epochs", str(epochs)]
    result: dict[str, Any] = json.loads(_output(command).strip().splitlines()[-1])
    return result


def _output(command: list[str]) -> str:
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)}\n{finished.stderr}")
    return finished.stdout


def _train_with_trl(options: dict[str, Any], rows: Path, epochs: int) -> dict[str, Any]:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from lmflow_smollm2.loader import cached_folder

    folder = str(cached_folder())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    conversations = [_conversation(row) for row in json.loads(rows.read_text(encoding="utf-8"))]
    ids = [tokenizer.apply_chat_template(messages, return_dict=False) for messages in conversations]
    lora = LoraConfig(r=8, lora_alpha=32, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM")
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        max_length=LENGTH,
        packing=options.get("packing", False),
        num_train_epochs=epochs,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        dataloader_pin_memory=False,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        args=config,
        train_dataset=Dataset.from_list([{"messages": messages} for messages in conversations]),
        processing_class=tokenizer,
        peft_config=lora if options.get("lora") else None,
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "tokens_per_second": epochs * sum(min(len(row), LENGTH) for row in ids) / seconds,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "loss": losses[-1],
    }


def _conversation(row: dict[str, str]) -> list[dict[str, str]]:
    prompt = "\n\n".join(text for text in (row["instruction"], row.get("input", "")) if text)
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": row["output"]}]


def _run_llama_factory(rows: Path, folder: Path, epochs: int) -> dict[str, Any]:
    from lmflow_smollm2.loader import cached_folder

    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": rows.name}}))
    options = {
        "model_name_or_path": str(cached_folder()),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset": "rows",
        "dataset_dir": str(folder),
        "template": "chatml",
        "cutoff_len": LENGTH,
        "output_dir": str(folder / "factory"),
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": epochs,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "include_num_input_tokens_seen": "non_padding",
    }
    config = folder / "factory.json"
    config.write_text(json.dumps(options))
    _output(["llamafactory-cli", "train", str(config)])
    result = json.loads((folder / "factory" / "all_results.json").read_text())
    return {
        "tokens_per_second": result["num_input_tokens_seen"] / result["train_runtime"],
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "loss": result["train_loss"],
    }


def _matrix_limit() -> dict[str, Any]:
    """Time the matrix products of one step of full training of SmolLM2's shape, and nothing else."""
    import torch

    tokens, labelled = 1700, 1350
    hidden, inner, vocabulary, layers, keys = 576, 1536, 49152, 30, 192
    shapes = [(tokens, hidden, hidden)] * 2 + [(tokens, hidden, keys)] * 2 + [(tokens, hidden, inner)] * 2
    shapes += [(tokens, inner, hidden)]
    seconds = layers * sum(_products(torch, *shape) for shape in shapes) + _products(
        torch, labelled, hidden, vocabulary
    )
    return {"tokens_per_second": tokens / seconds, "peak_memory_bytes": 0, "loss": float("nan")}


def _products(torch: Any, rows: int, inner: int, columns: int) -> float:
    """Return the seconds for a forward product and the two of its backward pass, the best of three."""
    x, weight, grad = torch.randn(rows, inner), torch.randn(columns, inner), torch.randn(rows, columns)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        x @ weight.T, grad @ weight, grad.T @ x
        best = min(best, time.perf_counter() - started)
    return best


def _table(results: list[dict[str, Any]]) -> str:
    lines = [f"{'':32}{'tokens/s':>10}{'peak GB':>10}{'last loss':>11}"]
    for result in results:
        memory = f"{result['peak_memory_bytes'] / 1e9:.2f}" if result["peak_memory_bytes"] else "-"
        lines.append(f"{result['name']:32}{result['tokens_per_second']:10.1f}{memory:>10}{result['loss']:11.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
