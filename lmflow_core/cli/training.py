"""``lmflow finetune``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lmflow_core.cli.command import SchemaCommand
from lmflow_core.cli.flags import Arguments
from lmflow_core.cli.given import GIVEN
from lmflow_core.cli.results import print_json
from lmflow_core.config.request import Request
from lmflow_core.config.schema import FINETUNE
from lmflow_core.contracts.command import CommandSpec
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console


def _run(request: Request, catalogue: Catalogue, arguments: Arguments) -> int | None:
    from lmflow_core.workflows.launching import launch

    status = launch(request, GIVEN.get())
    if status is not None:
        return status
    _train(request, catalogue, arguments)
    return None


def _train(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    from lmflow_core.workflows.finetune import finetune as work

    finished = work(request, catalogue)
    if finished is None:
        return
    if "json" in arguments.switches:
        print_json(finished.record)
        return
    record = finished.record
    losses = record["losses"]
    console.note(
        f"{record['steps']} steps, {record['tokens']} tokens in {record['seconds']:.1f} s "
        f"({record['tokens_per_second']:.1f} tokens/s, peak {record['peak_memory_bytes'] / 1e9:.2f} GB)"
    )
    if losses:
        console.note(f"loss {losses[0][1]:.4f} -> {losses[-1][1]:.4f}")
    console.note(f"result in {finished.folder}")


finetune = SchemaCommand(
    FINETUNE,
    _run,
    summary="Fine-tune a model on data. Flags override the run file; the chosen tuner's options join in.",
    run_file=True,
)


def finetuning_command(spec: CommandSpec, preset: Mapping[str, object]) -> SchemaCommand:
    """Return the command of a plugin that is ``lmflow finetune`` with defaults of its own."""
    schema = replace(FINETUNE, name=spec.name)
    chosen = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in preset.items())
    summary = f"{spec.summary} Does what lmflow finetune does with {chosen}."
    return SchemaCommand(schema, _run, summary=summary, run_file=True, preset=preset)
