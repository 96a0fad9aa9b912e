"""The parts of a run's memory, added up for each process."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lmflow_core.api import MemoryPart, MemoryPlan, ParameterGroup, PlannedRun, TrainingState
from lmflow_transformers.planning import overhead
from lmflow_transformers.planning.ledger import ACTIVATIONS, CAST, GRADIENTS, LOGITS, MAIN, WEIGHTS, Ledger
from lmflow_transformers.planning.optimizer_state import StateSizes
from lmflow_transformers.planning.quantised import QuantisedLinear
from lmflow_transformers.planning.step import Shape, batch_of, mark_weights, on_a_device, run_step, shape_of
from lmflow_transformers.training.offloading import check_offloading
from lmflow_transformers.training.sft import SftObjective

_FILE_WIDTH = 4  # bytes of a number in a checkpoint, at most


def memory_of(model: Any, run: PlannedRun, mode: FakeTensorMode, lean: bool = True) -> MemoryPlan:
    """Return what a run of a sketched model takes in each process.

    The step is carried out as it would be in one process. What is spread counts by its share; the moment of the peak
    is that of the shares.
    """
    placement = run.placement
    if run.settings.activation_offload:
        check_offloading(torch.device(run.device))
    alone = run.processes == 1 and not (placement.plan.sharded_state or placement.plan.sharded)
    shape = shape_of(run.settings, run.length, run.device, alone)
    with torch.device("meta"):
        model.load()
    run.tuner.check(model)
    run.tuner.prepare(model, run.settings.seed)
    groups = run.tuner.parameter_groups(model)
    _start_callbacks(model, run, groups)
    trained = {n: p for group in groups for n, p in group.parameters.items() if p.requires_grad}
    numbers = sum(parameter.numel() for parameter in trained.values())
    states, assumptions = _state(run, groups, trained)
    loss = _loss(run.objective, assumptions)
    counts = {WEIGHTS: 0.0, GRADIENTS: 1 / placement.gradients, MAIN: 0.0}
    ledger = Ledger(counts, model.config.get_text_config().vocab_size)
    on_a_device(model.network, mode)
    with mode:
        sizes = mark_weights(model.network, ledger)
    batch = batch_of(shape.sequences, mode)
    lean = lean and not placement.plan.sharded
    run_step(model, loss, batch, shape.passes, run.settings, lean, mode, ledger)
    most = ledger.highest if run.device == "cpu" else ledger.peak
    file = _mapped(model.network) if run.device == "cpu" else 0
    parts = _parts(run, shape, sizes, file, most, sum(states.values()), numbers)
    parameters = _parameters(model.network)
    return MemoryPlan(tuple(parts), parameters, numbers, shape.tokens, tuple(assumptions))


def _start_callbacks(model: Any, run: PlannedRun, groups: Sequence[ParameterGroup]) -> None:
    """Let the tuner's callbacks begin the run, as one that trains a few layers at a time freezes the others then."""
    parameters = [parameter for group in groups for parameter in group.parameters.values()]
    if parameters:
        state = TrainingState(0, torch.optim.SGD(parameters, lr=0.0), _NoExamples())
        for callback in run.tuner.callbacks(model, run.settings.seed):
            callback.on_start(state)


class _NoExamples:
    """Data of which there is none."""

    def __len__(self) -> int:
        return 0

    def __getitem__(self, position: int) -> Any:
        raise IndexError(position)

    def lengths(self) -> Sequence[int]:
        return []


def _state(
    run: PlannedRun, groups: Sequence[ParameterGroup], trained: Mapping[str, torch.nn.Parameter]
) -> tuple[dict[str, int], list[str]]:
    """Return the bytes of optimizer state of each parameter that trains, and what was assumed of them.

    An engine that updates float32 copies gives the optimizer those.
    """
    sizes = StateSizes(run.optimizer.make, groups, run.settings, torch.float32 if run.placement.copies else None)
    found = {name: sizes.bytes_of(name, parameter) for name, parameter in trained.items()}
    return found, [sizes.assumed] if sizes.assumed else []


def _loss(objective: Any, assumptions: list[str]) -> Any:
    """Return the loss of an objective, or that of predicting tokens where it does not tell."""
    make = getattr(objective, "loss", None)
    if make is not None:
        return make()
    assumptions.append("the objective does not tell its loss: that of sft is taken, on one sequence an example")
    return SftObjective().loss()


def _parameters(network: torch.nn.Module) -> int:
    """Return how many numbers a network has, those of quantised layers included."""
    packed = [module for module in network.modules() if isinstance(module, QuantisedLinear)]
    skipped = {id(module.weight) for module in packed}
    plain = sum(p.numel() for p in network.parameters() if id(p) not in skipped)
    return plain + sum(module.in_features * module.out_features for module in packed)


def _mapped(network: torch.nn.Module) -> int:
    """Return the bytes that quantised layers had in the file, whose pages stay while one tensor of it is in use."""
    packed = [module for module in network.modules() if isinstance(module, QuantisedLinear)]
    return sum(module.in_features * module.out_features * _FILE_WIDTH for module in packed)


def _largest_layer(sizes: Mapping[str, int]) -> int:
    """Return the bytes of the largest of a network's layers, its embeddings among them."""
    layers: Counter[str] = Counter()
    for name, size in sizes.items():
        layers[re.split(r"(?<=\.\d)\.|(?<=\.\d\d)\.", name, maxsplit=1)[0]] += size
    return max(layers.values(), default=0)


def _parts(
    run: PlannedRun,
    shape: Shape,
    sizes: Mapping[str, int],
    file: int,
    peak: Mapping[str, int],
    state: int,
    trained: int,
) -> Iterator[MemoryPart]:
    """Yield the parts; see the page of the planner for each formula."""
    place, gpu = run.placement, run.device != "cpu"
    weights = -(-sum(sizes.values()) // place.weights)
    gathered = _largest_layer(sizes) * 2 if place.gathered else 0
    yield _placed("weights", weights, place.weights_in_main, _shared("parameters and buffers", place.weights))
    if gathered:
        yield MemoryPart("gathered layers", gathered, 0, "the largest layer, and the next one that is fetched")
    if copies := place.copies * trained // place.state:
        yield _placed("copies for the update", copies, place.state_in_main, _shared("of what trains", place.state))
    if peak[CAST]:
        yield MemoryPart("weights as computed with", peak[CAST], 0, f"copies in {place.plan.compute_dtype}")
    gradients = -(-peak[GRADIENTS] // place.gradients)
    yield MemoryPart("gradients", gradients, 0, _shared("there at the peak", place.gradients))
    yield _placed("optimizer state", -(-state // place.state), place.state_in_main, _shared("counted", place.state))
    kept = f"kept for backward of {shape.tokens} tokens at a time"
    yield MemoryPart("activations", peak[ACTIVATIONS], peak[MAIN], kept)
    yield MemoryPart("logits", peak[LOGITS], 0, "those of a chunk, their gradient, and the head's")
    if place.buffers:
        yield MemoryPart("buffers of the engine", place.buffers, 0, "told by the engine")
    if file:
        yield MemoryPart("pages of the file", file, 0, "weights as they were before quantisation, still mapped")
    step = peak[CAST] + gradients + peak[ACTIVATIONS] + peak[LOGITS]
    yield from overhead.parts(gpu, peak[ACTIVATIONS], step)


def _placed(name: str, size: int, in_main: bool, reason: str) -> MemoryPart:
    return MemoryPart(name, 0 if in_main else size, size if in_main else 0, reason)


def _shared(what: str, processes: int) -> str:
    return what if processes == 1 else f"{what}, spread over {processes} processes"
