"""Planning the memory of a training run: what it takes, whether it fits, and the cheapest change that makes it fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmflow_core.config.request import Request, resolve
from lmflow_core.config.schema import PLAN
from lmflow_core.contracts.memory import MemoryPlan, ModelSketch, Placement, PlannedRun
from lmflow_core.contracts.model import LoadPlan, ModelSpec
from lmflow_core.contracts.settings import DataSettings, ModelSettings, PlanSettings, TrainingSettings
from lmflow_core.contracts.spec import TORCH
from lmflow_core.errors import LmflowError, ModelError, RequestError
from lmflow_core.plugins.references import find_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.targets import returned
from lmflow_core.workflows.finetune import learning_rate
from lmflow_core.workflows.leaner import Change, changes

_LENGTH = 2048


@dataclass(frozen=True)
class Fit:
    """A plan, and whether it fits.

    Attributes:
        plan: what each process takes.
        device: kind of device it was planned for.
        processes: of the job.
        fits: whether device and main memory suffice; None where neither was told.
        change: the cheapest change with which it fits, if it does not.
        changed: what each process takes then.
    """

    plan: MemoryPlan
    device: str
    processes: int
    fits: bool | None
    change: Change | None = None
    changed: MemoryPlan | None = None


def plan_memory(request: Request, catalogue: Catalogue) -> Fit:
    """Plan the memory of a request, and look for a change where it does not fit.

    Args:
        request: what ``lmflow finetune`` takes, and the machine.
        catalogue: the components there are.

    Raises:
        LmflowError: the request is wrong, the model has no configuration, or its plugin does not plan memory.
    """
    limits = request.get(PlanSettings)
    sketch = _sketch(request.get(ModelSettings), catalogue)
    plan = _planned(request, sketch, catalogue)
    fit = Fit(plan, _device(request), limits.gpus or 1, _fits(plan, limits))
    if fit.fits is not False:
        return fit
    values = {name: value for name, value in request.values().items() if value is not None}
    for group in changes(request, values, catalogue):
        for change, found in _fitting(group, values, sketch, catalogue):
            return dataclasses.replace(fit, change=change, changed=found)
    return fit


def _fitting(
    group: Sequence[Change], values: Mapping[str, object], sketch: ModelSketch, catalogue: Catalogue
) -> Iterator[tuple[Change, MemoryPlan]]:
    """Yield the changes of a group that make a run fit; where the one that needs the least does not, none does."""
    for change in (*group[-1:], *group):
        try:
            tried = resolve(PLAN, {**change.kept(values), **change.values}, catalogue)
            found = _planned(tried, sketch, catalogue)
        except LmflowError:
            found = None  # what was chosen does not go together with it
        fits = found is not None and bool(_fits(found, tried.get(PlanSettings)))
        if not fits and change is group[-1]:
            return
        if found is not None and fits and change is not group[-1]:
            yield change, found
    if found is not None:
        yield change, found


def _fits(plan: MemoryPlan, limits: PlanSettings) -> bool | None:
    """Whether a plan fits what was told of the machine, whose main memory all processes share."""
    if limits.memory is None and limits.main_memory is None:
        return None
    fits = limits.memory is None or plan.device <= limits.device_bytes()
    return fits and (limits.main_memory is None or plan.main * (limits.gpus or 1) <= limits.main_bytes())


def _sketch(settings: ModelSettings, catalogue: Catalogue) -> ModelSketch:
    reference = settings.model
    path = Path(reference).expanduser()
    # A file that holds a configuration is opened by what opens the folder it could stand in.
    named = str(path.parent.absolute()) if path.suffix == ".json" and path.is_file() else reference
    provided = find_model(named, catalogue, TORCH, "--plan")
    loader = catalogue.of(ModelSpec).load(provided.qualified)()
    make = getattr(loader, "sketch", None)
    if make is None:
        raise ModelError(
            f"model {provided.spec.name!r} of plugin {provided.plugin.name!r} cannot be planned: its loader has no "
            "sketch(reference, settings); give the folder or config.json of the model"
        )
    made: ModelSketch = make(reference, settings)
    return made


def _device(request: Request) -> str:
    """Return the kind of device that is planned for: a GPU where some are spoken of, else what was asked for."""
    asked = request.get(ModelSettings).device
    if asked == "auto":
        return "cuda" if request.get(PlanSettings).gpus else "cpu"
    kind = "cuda" if asked.startswith(("cuda", "gpu")) else asked
    if kind == "cpu" and request.get(PlanSettings).gpus:
        raise RequestError("--gpus with --device cpu: leave one of them out")
    return kind


def _planned(request: Request, sketch: ModelSketch, catalogue: Catalogue) -> MemoryPlan:
    settings, assumptions = request.get(TrainingSettings), list[str]()
    settings = dataclasses.replace(settings, lr=settings.lr or learning_rate(request))
    device, processes = _device(request), request.get(PlanSettings).gpus or 1
    tuner, objective, optimizer = (
        request.components[name].make(catalogue) for name in ("tuner", "objective", "optimizer")
    )
    plan = LoadPlan(
        dtype=_dtype(request, device),
        device=device,
        attention=_attention(request, catalogue, assumptions),
        parts=settings.train_parts,
    )
    with sketch.planning():
        for part in (tuner, objective):
            plan = returned(part.plan(plan), LoadPlan, part, "plan")
        placement = _placement(request, catalogue, plan, processes, assumptions)
    length = _length(request, sketch, assumptions)
    run = PlannedRun(tuner, optimizer, objective, settings, placement, length, device, processes)
    found: MemoryPlan = returned(sketch.memory(run), MemoryPlan, sketch, "memory")
    return dataclasses.replace(found, assumptions=(*assumptions, *found.assumptions))


def _dtype(request: Request, device: str) -> str:
    """Return the number format; what suits a device that is not here is said here."""
    asked = request.get(ModelSettings).dtype
    return ("bfloat16" if device == "cuda" else "float32") if asked == "auto" else asked


def _attention(request: Request, catalogue: Catalogue, assumptions: list[str]) -> str:
    component = request.components["attention"]
    try:
        found: str = component.make(catalogue).implementation("cpu")
        return found
    except LmflowError:
        assumptions.append(f"--attention {component.name} cannot be had on this machine: sdpa is taken, as large")
        plain = catalogue.of_kind("attention").load("sdpa")(None)
        return str(plain.implementation("cpu"))


def _placement(
    request: Request, catalogue: Catalogue, plan: LoadPlan, processes: int, assumptions: list[str]
) -> Placement:
    component = request.components["engine"]
    engine: Any = component.make(catalogue)
    tell = getattr(engine, "placement", None)
    if tell is None:
        assumptions.append(
            f"--engine {component.name} does not tell what it spreads: each process is taken to hold all"
        )
        return Placement(plan)
    found: Placement = returned(tell(plan, processes), Placement, engine, "placement")
    return found


def _length(request: Request, sketch: ModelSketch, assumptions: list[str]) -> int:
    """Return the tokens of an example: as many as are allowed, or as fit a pack."""
    asked = request.get(DataSettings).max_length or request.get(TrainingSettings).pack_length
    if asked is not None:
        return asked
    found = min(sketch.context_length or _LENGTH, _LENGTH)
    assumptions.append(f"examples have {found} tokens: --max-length tells otherwise")
    return found
