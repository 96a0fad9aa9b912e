"""``lmflow doctor``: versions, devices, and what is missing for what."""

from __future__ import annotations

import os
import platform
from typing import Any

import click

from lmflow_core.cli.results import print_json
from lmflow_core.contracts.attention import AttentionSpec
from lmflow_core.errors import LmflowError, OptionError
from lmflow_core.plugins.blame import failure_of
from lmflow_core.plugins.official import official_names
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.workflows.record import versions

_PLANNED = "lmflow.planned"


class _Doctor(click.Command):
    """With ``--plan`` a command of its own, which takes the flags of ``finetune``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Hand all arguments on where they ask for a plan."""
        ctx.meta[_PLANNED] = list(args) if "--plan" in args else None
        return super().parse_args(ctx, [] if "--plan" in args else args)

    def invoke(self, ctx: click.Context) -> Any:
        """Plan, or tell of this machine."""
        if ctx.meta[_PLANNED] is None:
            return super().invoke(ctx)
        from lmflow_core.cli.planning import plan_command

        with plan_command.make_context("doctor", ctx.meta[_PLANNED], parent=ctx.parent) as planning:
            return plan_command.invoke(planning)


@click.command(cls=_Doctor, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("--plan", is_flag=True, help="Tell what memory a training run takes: see 'lmflow doctor --plan --help'.")
@click.option("--gpus", help="With --plan: how many GPUs.")
@click.option("--memory", help="With --plan: memory of each device.")
@click.pass_obj
def doctor(catalogue: Catalogue, as_json: bool, plan: bool, gpus: str | None, memory: str | None) -> None:
    """Tell versions, devices, and what is missing for what; or plan the memory of a training run."""
    for flag, value in (("--gpus", gpus), ("--memory", memory)):
        if value is not None:
            raise OptionError(f"{flag} belongs to a plan of a training run: add --plan")
    found = {**versions(catalogue.plugins), **_machine(), "attention": _attentions(catalogue)}
    found["missing"] = _missing(catalogue)
    if as_json:
        print_json(found)
        return
    rows = [(name, _flat(value)) for name, value in found.items() if name != "missing"]
    console.show(console.pairs(rows))
    for line in found["missing"]:
        console.show(f"missing: {line}")


def _machine() -> dict[str, Any]:
    return {"platform": platform.platform(), "cpus": os.cpu_count(), "devices": _devices()}


def _devices() -> list[str]:
    try:
        import torch
    except ImportError:
        return ["unknown: torch is not installed"]
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ["cpu", *gpus]


def _attentions(catalogue: Catalogue) -> dict[str, str]:
    """Tell for each attention under which name the runtime has it on this machine, or why it does not."""
    found = {}
    for provided in catalogue.of(AttentionSpec):
        options = provided.spec.options
        try:
            attention = catalogue.of(AttentionSpec).load(provided.qualified)(options() if options else None)
            found[provided.spec.name] = attention.implementation("auto")
        except LmflowError as error:
            found[provided.spec.name] = f"not available: {error}"
        except Exception as error:
            found[provided.spec.name] = f"not available: {failure_of(provided.plugin, error)}"
    return found


def _missing(catalogue: Catalogue) -> list[str]:
    """Tell, for each official distribution that is not in use, which names go without it."""
    healthy = {record.distribution for record in catalogue.plugins.healthy()}
    lacking: dict[str, list[str]] = {}
    for kind, names in official_names().items():
        for name, distribution in names.items():
            if distribution not in healthy:
                lacking.setdefault(distribution, []).append(f"{kind} {name}")
    lines = [f"{distribution}, for {', '.join(names)}" for distribution, names in sorted(lacking.items())]
    lines += [f"plugin {r.name} is {r.condition}: {r.error}" for r in catalogue.plugins.unhealthy()]
    return lines


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {content}" for name, content in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
