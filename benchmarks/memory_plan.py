"""Memory as ``lmflow doctor --plan`` predicts it, beside what was published and what is measured here.

    python benchmarks/memory_plan.py                        # beside Table 1 of the LISA paper; nothing is trained
    python benchmarks/memory_plan.py --data ROWS.json       # beside runs on this machine's processor

Table 1 of arXiv:2403.17919: 1,024 tokens, batch 1, no recomputation, no offloading, no flash attention; its figures
imply weights, gradients and AdamW's moments in bfloat16. That is modelled so: layers keep all they compute, logits
exist as a whole, adapters of all linear layers are bfloat16, and the gradients of a step are still there in the forward
pass of the next. Which attention was taken is not told; for each model the one is modelled that is nearer: PyTorch's,
which keeps no scores, for all but GPT-2, whose figures fit scores of T x T. The runs train SmolLM2-135M-Instruct on
packs of full length, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MODELS = Path(__file__).with_name("memory_plan_models.json")
TOKENS = 1024
KEEPING_SCORES = ("GPT2-Small",)
COLUMNS = ("full", "LoRA 128", "LoRA 256", "LoRA 512", "LISA E+H", "LISA +2L", "LISA +4L")
# GB; None is out of memory, and what was spread over four GPUs is given as one figure.
PUBLISHED: dict[str, tuple[float | None, ...]] = {
    "GPT2-Small": (3.8, 3.3, 3.5, 3.7, 3.3, 3.3, 3.4),
    "TinyLlama": (13, 7.9, 8.6, 10, 7.4, 8.0, 8.3),
    "Phi-2": (28, 14.3, 15.5, 18, 13.5, 14.6, 15),
    "Mistral-7B": (59, 23, 26, 28, 21, 23, 24),
    "LLaMA-2-7B": (59, 23, 26, 28, 21, 23, 24),
    "LLaMA-2-70B": (None, 79, None, None, 71, 75, 79),
}
MODEL = "smollm2-135m-instruct"
TUNERS = ("full", "lora", "lisa", "qlora")
RUNS = ((256, 1), (512, 1), (1024, 1), (512, 4))  # tokens of a pack, packs of a batch
STEPS = 4


def main() -> None:
    """Predict, measure where data are given, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="alpaca rows to train on: a JSON list")
    parser.add_argument("--only", nargs="+", help="models of the paper's table, or tuners of the runs")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    cells = list(beside_runs(arguments.data, arguments.only) if arguments.data else beside_paper(arguments.only))
    print(json.dumps(cells, indent=2) if arguments.json else table(cells))


def table(cells: Sequence[dict[str, Any]]) -> str:
    """Return predictions and figures as a table."""
    lines = ["| | | predicted, GB | known, GB | |", "|---|---|---|---|---|"]
    for cell in cells:
        known = cell["known"]
        beside = "OOM |" if known is None else f"{known:.2f} | {cell['predicted'] / known - 1:+.0%}"
        lines.append(f"| {cell['model']} | {cell['run']} | {cell['predicted']:.2f} | {beside} |")
    return "\n".join(lines)


# ---- the paper's table


def beside_paper(only: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield a cell of the paper's table after the other, with what is predicted for it."""
    for name, published in PUBLISHED.items():
        if only is None or name in only:
            for column, known in zip(COLUMNS, published, strict=True):
                yield {"model": name, "run": column, "predicted": predicted(name, column) / 1e9, "known": known}


def predicted(name: str, column: str) -> int:
    """Return the bytes that the planner finds for a cell of the paper's table."""
    from lmflow_core.api import LoadPlan, ModelSettings, Placement, PlannedRun, TrainingSettings
    from lmflow_transformers.api import AdamW, CausalModelLoader

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(json.loads(MODELS.read_text(encoding="utf-8"))[name]))
        sketch: Any = CausalModelLoader().sketch(str(file), ModelSettings(model=str(file), device="cuda"))
    attention = "eager" if name in KEEPING_SCORES else "sdpa"
    placement = Placement(LoadPlan(dtype="bfloat16", device="cuda", attention=attention))
    settings = TrainingSettings(lr=1e-5, batch_size=1, gradient_accumulation_steps=2)
    run = PlannedRun(tuner(column), AdamW(), WholeLogits(), settings, placement, TOKENS, "cuda")
    return int(sketch.memory(run, lean=False).device)


def tuner(column: str) -> Any:
    """Return what trains as the column says."""
    import torch

    from lmflow_lora.options import LoraOptions
    from lmflow_lora.tuner import LoraTuner
    from lmflow_transformers.api import FullTuner

    class HalfLora(LoraTuner):
        """Adapters in the number format of the weights, as the figures imply."""

        def prepare(self, model: Any, seed: int) -> None:
            super().prepare(model, seed)
            for module in model.network.modules():
                for name, parameter in list(module.named_parameters(recurse=False)):
                    half = parameter.data.to(torch.bfloat16)
                    setattr(module, name, torch.nn.Parameter(half, parameter.requires_grad))

    class SomeLayers(FullTuner):
        """Embeddings, head and a few layers."""

        def prepare(self, model: Any, seed: int) -> None:
            super().prepare(model, seed)
            lists = [m for m in model.base.modules() if isinstance(m, torch.nn.ModuleList)]
            for layer in list(max(lists, key=len))[int(column[6]) if "L" in column[5:] else 0 :]:
                layer.requires_grad_(False)

    kind, _, what = column.partition(" ")
    if kind == "LoRA":
        return HalfLora(LoraOptions(lora_r=int(what), lora_dropout=0.0))
    return FullTuner() if kind == "full" else SomeLayers()


class WholeLogits:
    """The objective of most trainers: float32 logits of every position at once."""

    def loss(self) -> Any:
        """Return the loss."""
        from lmflow_transformers.api import LossOutput

        def whole(network: Any, batch: Any) -> Any:
            import torch

            inputs = {name: batch.inputs[0][name] for name in ("input_ids", "position_ids")}
            logits = network(use_cache=False, **inputs).logits[0].float()
            return LossOutput(torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum"))

        return whole


# ---- runs on this machine


def beside_runs(data: Path, only: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield what was predicted and measured of one run after the other."""
    for name in only or TUNERS:
        for length, batch in RUNS:
            flags = ["--model", MODEL, "--tuner", name, "--device", "cpu", *run_flags(length, batch)]
            told = json.loads(lmflow("doctor", "--plan", "--json", *flags))
            known = measured(data, flags)
            run = f"{name}, {batch} packs of {length}"
            yield {"model": MODEL, "run": run, "predicted": told["device_bytes"] / 1e9, "known": known / 1e9}


def run_flags(length: int, batch: int) -> list[str]:
    """Return the flags of a run on packs of full length."""
    size = ["--pack-length", str(length), "--batch-size", str(batch)]
    return [*size, "--max-length", str(length), "--length-policy", "truncate", "--max-steps", str(STEPS)]


def measured(data: Path, flags: Sequence[str]) -> int:
    """Return the peak memory of a run, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        lmflow("finetune", "--dataset", str(data), "--max-train-samples", "400", "--output", str(output), *flags)
        return int(json.loads((output / "run.json").read_text(encoding="utf-8"))["peak_memory_bytes"])


def lmflow(*command: str) -> str:
    """Run a command and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "lmflow_core", *command], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    main()
