"""A training step without numbers: what is alive while it goes forward and backward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from lmflow_core.api import EncodedExample, EncodedSequence, TrainingSettings
from lmflow_transformers.attention import using_attention
from lmflow_transformers.batches import Batch, collate
from lmflow_transformers.lean import lean_layers
from lmflow_transformers.planning.ledger import GRADIENTS, MAIN, WEIGHTS, Ledger
from lmflow_transformers.training.micro_batches import tokens_per_micro_batch
from lmflow_transformers.training.run import recomputed_layers


@dataclass(frozen=True)
class Shape:
    """What goes through the network in a step.

    Attributes:
        sequences: lengths in tokens of those that go through it at a time.
        passes: how many times that happens before the optimizer's step.
    """

    sequences: tuple[int, ...]
    passes: int

    @property
    def tokens(self) -> int:
        """Tokens that go through the network at a time."""
        return sum(self.sequences)


def shape_of(settings: TrainingSettings, length: int, device: str, alone: bool) -> Shape:
    """Return what goes through the network when every example has the same length.

    A batch is ``batch_size`` examples, or packs of ``pack_length`` tokens. It goes through in micro-batches of as many
    whole examples as have no more than ``micro_batch_tokens`` tokens together, at least one (see ``micro_batches``).
    """
    pack = settings.pack_length
    length = min(length, pack or length)
    examples = settings.batch_size * (pack // length if pack else 1)
    most = tokens_per_micro_batch(settings.micro_batch_tokens, torch.device(device), alone)
    together = examples if most is None else min(max(most // length, 1), examples)
    passes = -(-examples // together) * settings.gradient_accumulation_steps
    return Shape((length,) * together, passes)


@dataclass(frozen=True)
class _PlannedBatch(Batch):
    """A batch whose labelled positions are told by number, as how many there are cannot depend on numbers here."""

    learned: torch.Tensor = field(default_factory=lambda: torch.tensor([]))

    @property
    def labelled(self) -> torch.Tensor:
        """Every position but the last of each sequence."""
        return self.learned


def batch_of(sequences: tuple[int, ...], mode: FakeTensorMode) -> Batch:
    """Return a batch whose every token is learned."""
    examples = [EncodedExample((EncodedSequence([1] * length, [1] * length),)) for length in sequences]
    batch = collate(examples)
    inputs = tuple(
        {name: each if name.startswith("cu_seq") else mode.from_tensor(each) for name, each in one.items()}
        for one in batch.inputs
    )
    learned = batch.labelled.nonzero()[:, 0]
    return _PlannedBatch(inputs, batch.targets, batch.ends, batch.groups, batch.numbers, learned=learned)


def run_step(
    model: Any,
    loss: Any,
    batch: Batch,
    passes: int,
    settings: TrainingSettings,
    lean: bool,
    mode: FakeTensorMode,
    ledger: Ledger,
) -> None:
    """Carry out a step in the ledger; weights are marked in it before.

    Args:
        model: sketched and loaded, prepared by its tuner.
        loss: of the objective.
        batch: goes through the network.
        passes: how many times before the optimizer's step; behind the second nothing new comes.
        settings: of the run.
        lean: whether norms and gated layers keep less for backward, as in a run without ZeRO stage 3.
        mode: in which tensors have no memory.
        ledger: writes down what is alive.
    """
    network, compute = model.base, model.plan.compute_dtype
    for parameter in model.network.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: ledger.mark(p.grad, GRADIENTS))
    with ExitStack() as stack:
        if model.plan.attention is not None:
            stack.enter_context(using_attention(network, model.plan.attention))
        if settings.gradient_checkpointing:
            stack.enter_context(recomputed_layers(network))
        elif lean:
            # Outside of the mode: what is tried beside the network is tried with numbers.
            stack.enter_context(lean_layers(network))
        stack.enter_context(mode)
        stack.enter_context(ledger)
        for _ in range(min(passes, 2)):
            autocast = torch.autocast("cpu", getattr(torch, compute or "bfloat16"), enabled=compute is not None)
            with autocast, _offloaded(model.network, ledger) if settings.activation_offload else nullcontext():
                total = loss(network, batch).total / 1.0
            total.backward()
            del total


@contextmanager
def _offloaded(network: torch.nn.Module, ledger: Ledger) -> Iterator[None]:
    """Count what is kept for backward, except weights, as in main memory."""

    def away(tensor: torch.Tensor) -> torch.Tensor:
        if ledger.kind(tensor) == WEIGHTS:
            return tensor
        kept = torch.empty_like(tensor)
        ledger.mark(kept, MAIN)
        return kept

    def back(kept: torch.Tensor) -> torch.Tensor:
        return kept if ledger.kind(kept) == WEIGHTS else torch.empty_like(kept)

    with saved_tensors_hooks(away, back):
        yield


def on_a_device(network: torch.nn.Module, mode: FakeTensorMode) -> None:
    """Put the tensors of a network, which are nowhere, on a device that is made up.

    Tensors of the device ``meta`` are nowhere: autocast leaves them alone and attention takes no kernel for them.
    """
    made: dict[int, Any] = {}
    with mode:
        for module in network.modules():
            for tensors in (vars(module)["_parameters"], vars(module)["_buffers"]):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        tensors[name] = made.setdefault(id(tensor), _like(tensor))


def _like(tensor: torch.Tensor) -> torch.Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
    return torch.nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else empty


def mark_weights(network: torch.nn.Module, ledger: Ledger) -> Mapping[str, int]:
    """Mark parameters and buffers, and return the bytes of each by name; what is shared is counted once."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            sizes[name] = tensor.numel() * tensor.element_size()
            ledger.mark(tensor, WEIGHTS)
    return sizes
