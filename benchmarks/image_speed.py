"""Speed and memory of training a model that sees: LMFlow against TRL's ``SFTTrainer``, on the same conversations.

    python benchmarks/image_speed.py

Of SmolLM2-135M-Instruct and a SigLIP tower of the size of its base model, whose weights are drawn, `lmflow vlm
assemble` makes an Idefics3; ``--model FOLDER`` takes another model that sees. Each contender trains it for one epoch in
a process of its own, one after the other: float32, two threads, batches of 8 conversations in the order of the file,
the answers labelled, the vision tower frozen; with LoRA, adapters on the language model's layers. The time is that from
rows and pictures to the trained model. TRL is run with the activation checkpointing that its defaults switch on, and
without, which is faster. The tokens and labels must be the same, and so must the first loss, up to 1e-3.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from contenders import (
    THREADS,
    Clock,
    common_trl_options,
    logged_losses,
    losses_of,
    peak_memory_bytes,
    run_worker,
    train_in_order,
)
from seeing_pictures import conversation, describe, draw, things

BATCH = 8
RATES = {"full": 2e-5, "LoRA": 2e-4}
CONTENDERS = (
    "LMFlow full",
    "TRL full",
    "TRL full, checkpointing",
    "LMFlow LoRA (r 8)",
    "TRL LoRA (r 8)",
    "TRL LoRA (r 8), checkpointing",
)
_LANGUAGE = Path.home() / ".cache/lmflow/smollm2-135m-instruct"
_TOWER = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_PIXELS, _PATCH = 224, 16
_LORA = ["--tuner", "lora", "--lora-r", "8", "--lora-alpha", "32", "--lora-dropout", "0", "--train-parts", "language"]
_SYSTEM = {"role": "system", "content": "You answer questions about pictures."}


def main() -> None:
    """Run every contender and print the table."""
    arguments = _arguments()
    if arguments.worker:
        print(json.dumps(_WORKERS[arguments.worker.split()[0]](arguments.worker, arguments.model, arguments.data)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_rows(folder, arguments.rows, random.Random(arguments.seed))
        options = {"--data": data, "--model": arguments.model or folder / "model"}
        if arguments.model is None:
            # Not here: a process remembers the most memory it has had, and hands it on to those it starts.
            run_worker(__file__, "assembling", {"--model": folder / "model", "--data": arguments.language})
        results = [run_worker(__file__, each, options, arguments.threads) for each in arguments.only]
    _check_alike(results)
    print(json.dumps(results, indent=2) if arguments.json else _table(results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a folder; one is assembled when left out")
    parser.add_argument("--language", type=Path, default=_LANGUAGE, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--rows", type=int, default=48, help="conversations")
    parser.add_argument("--seed", type=int, default=7, help="of conversations and pictures")
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, help="run these")
    parser.add_argument("--threads", type=int, default=THREADS, help="of each; one makes processor time comparable")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def write_rows(folder: Path, count: int, source: random.Random) -> Path:
    """Write conversations on one to three pictures, of one to some twenty turns, and return their file."""
    rows = []
    for number in range(count):
        messages: list[dict[str, Any]] = [_SYSTEM]
        for place in range(source.choice((1, 1, 1, 2, 3))):
            name = f"{number}-{place}.png"
            messages += _about_a_picture(folder / name, source)
        rows.append({"messages": messages})
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def _about_a_picture(file: Path, source: random.Random) -> list[dict[str, Any]]:
    shown = things(source)
    sides = [source.randint(64, 512) for _ in range(2)]
    draw(shown, 256, source).resize((sides[0], sides[1])).save(file)
    asked = conversation(shown, source)
    asked = asked[: source.randint(1, len(asked))]
    if source.random() < 0.7:
        asked.insert(0, describe(shown))
    messages: list[dict[str, Any]] = []
    for place, question in enumerate(asked):
        image = [{"type": "image", "image": file.name}] if place == 0 else []
        messages.append({"role": "user", "content": [*image, {"type": "text", "text": question.text}]})
        messages.append({"role": "assistant", "content": question.answer})
    return messages


def _assembled(name: str, output: Path, language: Path) -> dict[str, Any]:
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(0)
    tower: Any = SiglipVisionModel(SiglipVisionConfig(**_TOWER, image_size=_PIXELS, patch_size=_PATCH))
    with tempfile.TemporaryDirectory() as folder:
        tower.save_pretrained(folder)
        parts = ("--language", language, "--vision", folder, "--output", output, "--kind", "idefics3")
        command = [sys.executable, "-m", "lmflow_core", "vlm", "assemble", *map(str, parts)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return {}


def _with_lmflow(name: str, model: Path, data: Path) -> dict[str, Any]:
    from lmflow_core.cli.main import run
    from lmflow_core.data.dataset import DatasetMaker
    from lmflow_transformers.training.sft import SftObjective

    train_in_order()
    times: list[dict[str, float]] = []
    made: list[Any] = []
    _time_calls(DatasetMaker, "make", times, made)
    _time_calls(SftObjective, "train", times, [])
    with tempfile.TemporaryDirectory() as folder:
        flags = ["finetune", "--model", str(model), "--dataset", str(data), "--output", f"{folder}/out"]
        flags += ["--batch-size", str(BATCH), "--lr", str(_rate(name)), "--lr-scheduler-type", "constant"]
        flags += ["--warmup-ratio", "0", "--logging-steps", "1", "--epochs", "1", "--device", "cpu"]
        if run([*flags, "--dtype", "float32", *(_LORA if "LoRA" in name else [])]):
            raise SystemExit("lmflow finetune failed")
        losses = losses_of(Path(folder, "out"))
    rows = [(list(row.input_ids), list(row.labels)) for example in made[0].rows for row in example.sequences]
    spent = {kind: sum(each[kind] for each in times) for kind in times[0]}
    return _result(rows, spent, losses)


def _time_calls(kind: Any, name: str, times: list[dict[str, float]], results: list[Any]) -> None:
    """Let a method of a class add what its calls take and what they give."""
    method = getattr(kind, name)

    def timed(*arguments: Any, **options: Any) -> Any:
        clock = Clock()
        results.append(method(*arguments, **options))
        times.append(clock.read())
        return results[-1]

    setattr(kind, name, timed)


def _with_trl(name: str, model: Path, data: Path) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import SFTConfig, SFTTrainer

    network: Any = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32)
    processor: Any = AutoProcessor.from_pretrained(model)
    processor.chat_template = _with_generation_marks(processor.chat_template)
    for module in network.modules():
        if getattr(module, "config", None) is network.config.vision_config:
            module.requires_grad_(False)
    text = {id(module) for module in network.get_decoder().modules() if isinstance(module, torch.nn.Linear)}
    targets = [place for place, module in network.named_modules() if id(module) in text]
    lora = LoraConfig(r=8, lora_alpha=32, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
    common = common_trl_options(BATCH, _rate(name), "checkpointing" in name)
    config = SFTConfig(
        max_length=None, assistant_only_loss=True, train_sampling_strategy="sequential", shuffle_dataset=False, **common
    )
    clock = Clock()
    trainer = SFTTrainer(
        model=network,
        args=config,
        train_dataset=Dataset.from_list(_with_pictures(data)),
        processing_class=processor,
        peft_config=lora if "LoRA" in name else None,
    )
    trainer.train()
    spent = clock.read()
    peak = peak_memory_bytes()
    rows = [_ids(trainer.data_collator([row])) for row in trainer.train_dataset]
    return {**_result(rows, spent, logged_losses(trainer)), "peak_memory_bytes": peak}


def _with_generation_marks(template: str) -> str:
    """Return the chat template of SmolLM2 with TRL's marks around what the assistant writes."""
    whole = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    assert whole in template, "the chat template is not that of SmolLM2"
    content = "{{ message['content'] + '<|im_end|>' }}"
    marked = "{% generation %}" + content + "{% endgeneration %}"
    either = "{% if message['role'] == 'assistant' %}" + marked + "{% else %}" + content + "{% endif %}"
    return template.replace(whole, "{{'<|im_start|>' + message['role'] + '\n'}}" + either + "{{ '\n' }}")


def _with_pictures(data: Path) -> list[dict[str, Any]]:
    """Return the rows as TRL takes them: pictures beside messages that say where they stand."""
    from PIL import Image

    rows = []
    for line in data.read_text(encoding="utf-8").splitlines():
        messages, names = json.loads(line)["messages"], []
        for message in messages:
            if isinstance(message["content"], str):
                message["content"] = [{"type": "text", "text": message["content"]}]
            names += [part.pop("image") for part in message["content"] if part["type"] == "image"]
        rows.append({"messages": messages, "images": [Image.open(data.parent / name) for name in names]})
    return rows


def _ids(batch: Any) -> tuple[list[int], list[int]]:
    return batch["input_ids"][0].tolist(), batch["labels"][0].tolist()


def _result(rows: list[tuple[list[int], list[int]]], spent: dict[str, float], losses: list[float]) -> dict[str, Any]:
    return {
        **spent,
        "rows": len(rows),
        "tokens": sum(len(ids) for ids, _ in rows),
        "labelled": sum(label >= 0 for _, labels in rows for label in labels),
        "digest": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "peak_memory_bytes": peak_memory_bytes(),
        "losses": losses,
    }


def _rate(name: str) -> float:
    return next(rate for kind, rate in RATES.items() if kind in name)


def _check_alike(results: list[dict[str, Any]]) -> None:
    first = results[0]
    for result in results:
        if result["digest"] != first["digest"]:
            raise SystemExit(f"{result['name']} and {first['name']} trained on different tokens or labels")
        if abs(result["losses"][0] - first["losses"][0]) > 1e-3:
            raise SystemExit(f"first losses differ: {result['name']} {result['losses'][0]}, {first['losses'][0]}")


def _table(results: list[dict[str, Any]]) -> str:
    told = results[0]
    lines = [f"{told['rows']} conversations, {told['tokens']} tokens, {told['labelled']} of them labelled", ""]
    lines += ["| | samples/s | tokens/s | CPU s | peak GB | losses |", "|---|---|---|---|---|---|"]
    for result in results:
        cells = (
            result["name"],
            f"{result['rows'] / result['seconds']:.3f}",
            f"{result['tokens'] / result['seconds']:.1f}",
            f"{result['cpu_seconds']:.0f}",
            f"{result['peak_memory_bytes'] / 1e9:.2f}",
            " ".join(f"{loss:.4f}" for loss in result["losses"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


_WORKERS = {"assembling": _assembled, "LMFlow": _with_lmflow, "TRL": _with_trl}

if __name__ == "__main__":
    main()
