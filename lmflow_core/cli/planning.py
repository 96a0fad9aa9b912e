"""``lmflow doctor --plan``: whether a training run fits, from the model's configuration alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lmflow_core.cli.command import SchemaCommand
from lmflow_core.cli.flags import Arguments
from lmflow_core.cli.results import print_json
from lmflow_core.config.request import Request
from lmflow_core.config.schema import PLAN
from lmflow_core.contracts.memory import MemoryPlan
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.workflows.plan import Fit


def _run(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    from lmflow_core.workflows.plan import plan_memory

    fit = plan_memory(request, catalogue)
    if "json" in arguments.switches:
        print_json(_document(fit))
        return
    console.show(_table(fit))
    for line in _verdict(fit):
        console.show(line)


plan_command = SchemaCommand(
    PLAN,
    _run,
    summary="Tell what memory a training run takes, without its weights. Takes the flags and run files of finetune.",
    run_file=True,
    switches=("plan",),
)


def _document(fit: Fit) -> dict[str, Any]:
    change = None
    if fit.change is not None and fit.changed is not None:
        change = {"flags": fit.change.flags(), "values": dict(fit.change.values), **_bytes(fit.changed)}
    return {
        "device": fit.device,
        "processes": fit.processes,
        "parameters": fit.plan.parameters,
        "trained": fit.plan.trained,
        "tokens": fit.plan.tokens,
        **_bytes(fit.plan),
        "assumptions": list(fit.plan.assumptions),
        "fits": fit.fits,
        "change": change,
    }


def _bytes(plan: MemoryPlan) -> dict[str, Any]:
    parts = [
        {"name": part.name, "device_bytes": part.device, "main_bytes": part.main, "reason": part.reason}
        for part in plan.parts
    ]
    return {"device_bytes": plan.device, "main_bytes": plan.main, "parts": parts}


def _table(fit: Fit) -> str:
    plan, gpu = fit.plan, fit.device != "cpu"
    rows = [
        (part.name, _gb(part.device), *((_gb(part.main),) if gpu else ()), part.reason)
        for part in (*plan.parts,)
        if part.device or part.main
    ]
    total = ("in all", _gb(plan.device), *((_gb(plan.main),) if gpu else ()), f"in each of {fit.processes}")
    device = "each GPU, GB" if gpu else "GB"
    return console.table(["part", device, *(("main memory, GB",) if gpu else ()), "what"], [*rows, total])


def _verdict(fit: Fit) -> Iterator[str]:
    plan = fit.plan
    yield f"at a time {plan.trained:,} of {plan.parameters:,} parameters train, and {plan.tokens} tokens go through"
    for assumption in plan.assumptions:
        yield f"assumed: {assumption}"
    if fit.fits is None:
        yield "give --memory to be told whether it fits"
    elif fit.fits:
        yield "it fits"
    elif fit.change is not None and fit.changed is not None:
        beside = f" and {_gb(fit.changed.main)} GB of main memory" if fit.device != "cpu" else ""
        yield "it does not fit; the cheapest change that makes it fit:"
        yield f"  {fit.change.flags()}   ({_gb(fit.changed.device)} GB{beside} in each process)"
    else:
        yield "it does not fit, and no change that is known here makes it fit: take more devices or a smaller model"


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f}"
