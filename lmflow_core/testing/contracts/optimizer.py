"""The contract of optimizers: what they update, by which rate and decay, and that a run can be taken up again."""

from __future__ import annotations

import io
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lmflow_core.contracts.objective import ObjectiveSpec
from lmflow_core.contracts.optimizer import ParameterGroup
from lmflow_core.contracts.settings import TrainingSettings
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.contracts.base import ComponentContract
from lmflow_core.testing.tensors import differing

# Shapes as networks have them, some in a numbered layer; an embedding gets gradients for the rows of a batch alone.
_SHAPES = {"embedding": (11, 4), "layers.0.matrix": (6, 5), "kernel": (2, 3, 2, 2), "vector": (7,), "single": (1,)}
_SHAPES |= {"layers.1.square": (8, 8), "empty": (0, 3)}
_STEPS = 40
_RATE, _DECAY = 2.0**-6, 0.125

Parameters = dict[str, Any]
Gradients = Callable[[str, Any], Any]


class OptimizerContract(ComponentContract):
    """What an optimizer must do, tried on parameters of every shape and on a small model.

    Attributes:
        learning_rate: with which a small quadratic falls within forty steps, and the loss of a small model within six.
        knows_decay: whether the settings' weight decay means anything to it.
    """

    kind: ClassVar[str] = "optimizer"
    learning_rate: ClassVar[float] = 1e-2
    knows_decay: ClassVar[bool] = True

    def test_it_updates_what_it_is_given(self, component: Any) -> None:
        """It makes an optimizer of torch over all parameters of all groups, each once."""
        import torch

        groups = [_group(_parameters()), ParameterGroup(_parameters(seed=1), lr_factor=2.0, decays=False)]
        made = component.make(groups, _settings())
        assert isinstance(made, torch.optim.Optimizer), f"make() gives a {type(made).__name__}"
        given = [id(parameter) for group in made.param_groups for parameter in group["params"]]
        asked = [id(parameter) for group in groups for parameter in group.parameters.values()]
        told = f"{len(asked)} parameters were given, and {len(given)} are updated"
        assert sorted(given) == sorted(asked), told

    def test_a_quadratic_falls(self, component: Any) -> None:
        """The distance to a target falls for parameters of every shape."""
        parameters, targets = _parameters(), _parameters(seed=3)
        before = {name: float((p.detach() - targets[name]).pow(2).sum()) for name, p in parameters.items()}
        made = component.make([_group(parameters)], _settings(self.learning_rate))
        for _ in range(_STEPS):
            _step(made, parameters, lambda name, p: 2 * (p - targets[name]))
        component.use_weights(made, training=False)
        after = {name: float((p.detach() - targets[name]).pow(2).sum()) for name, p in parameters.items()}
        worse = [f"{name} {before[name]:.3g} to {after[name]:.3g}" for name in before if after[name] > before[name]]
        assert not worse, f"farther from the target after {_STEPS} steps: {', '.join(worse)}"
        idle = [name for name in before if before[name] and after[name] == before[name]]
        assert not idle, f"not updated: {', '.join(idle)}"

    def test_a_run_repeats(self, component: Any) -> None:
        """The same gradients give the same bits."""
        assert not differing(_run(component), _run(component)), "the same run gives other parameters"

    def test_state_goes_on_bit_by_bit(self, component: Any) -> None:
        """Saved and loaded, as checkpoints are, its state goes on with the bits of an uninterrupted run."""
        import torch

        parameters = _parameters()
        made = component.make([_group(parameters)], _settings())
        for step in range(3):
            _step(made, parameters, _gradients(step))
        written = io.BytesIO()
        torch.save(made.state_dict(), written)
        written.seek(0)
        copies = {name: torch.nn.Parameter(p.detach().clone()) for name, p in parameters.items()}
        resumed = component.make([_group(copies)], _settings())
        try:
            state = torch.load(written, weights_only=True)
        except Exception as error:
            raise AssertionError(f"its state holds more than tensors and numbers: {error}") from None
        resumed.load_state_dict(state)
        for step in range(3, 6):
            _step(made, parameters, _gradients(step))
            _step(resumed, copies, _gradients(step))
        others = differing(parameters, copies)
        assert not others, f"a run that goes on from a checkpoint has other bits: {', '.join(others)}"

    def test_factors_of_the_rate_hold(self, component: Any) -> None:
        """A group with twice the learning rate moves as all do when the learning rate is doubled."""
        plain, doubled = _run(component), _run(component, rate=2 * _RATE)
        factored = _run(component, lr_factor=2.0)
        _assert_close(factored, doubled, "a group with lr_factor 2 does not move as with twice the learning rate")
        same = [name for name in plain if plain[name].numel() and name not in differing(plain, factored)]
        assert not same, f"lr_factor 2 changes nothing for {', '.join(same)}"

    def test_schedules_are_followed(self, component: Any) -> None:
        """It follows a schedule of the learning rate: half is half, and with none nothing moves."""
        halved, half = _run(component, schedule=0.5), _run(component, rate=_RATE / 2)
        _assert_close(halved, half, "half of the learning rate by a schedule is not half of it from the start")
        moved = differing(_parameters(), _run(component, schedule=0.0))
        assert not moved, f"with a learning rate of 0 these move: {', '.join(moved)}"

    def test_decay_is_where_it_is_asked_for(self, component: Any) -> None:
        """Without gradients weights shrink where decay applies, and stay where it does not or is 0."""
        start = _parameters()
        still: Gradients = lambda _, p: p * 0  # noqa: E731
        for told, more in (("decay does not apply", {"decays": False}), ("weight decay is 0", {"decay": 0.0})):
            moved = differing(start, _run(component, gradients=still, **more))
            assert not moved, f"{told}, and without gradients these move: {', '.join(moved)}"
        if self.knows_decay:
            shrunk = _run(component, gradients=still)
            wrong = [name for name in start if start[name].numel() and shrunk[name].norm() >= start[name].norm()]
            assert not wrong, f"with weight decay, and without gradients, these do not shrink: {', '.join(wrong)}"

    def test_parameters_without_gradients_stay(self, component: Any) -> None:
        """Parameters without a gradient stay as they are, at the first step and later."""
        parameters = _parameters()
        made = component.make([_group(parameters)], _settings())
        for step in range(3):
            kept = {name: p.detach().clone() for name, p in parameters.items() if (len(name) + step) % 2}
            _step(made, parameters, _but_for(kept, _gradients(step)))
            moved = differing(kept, {name: parameters[name] for name in kept})
            assert not moved, f"without a gradient these move in step {step + 1}: {', '.join(moved)}"

    def test_weights_for_use_are_given_back(self, component: Any) -> None:
        """Behind a measurement the weights that train are there again, bit by bit, and training goes on as without."""
        parameters, others = _parameters(), _parameters()
        made, undisturbed = (component.make([_group(each)], _settings()) for each in (parameters, others))
        for step in range(4):
            for optimizer, each in ((made, parameters), (undisturbed, others)):
                _step(optimizer, each, _gradients(step))
            before = {name: p.detach().clone() for name, p in parameters.items()}
            component.use_weights(made, training=False)
            component.use_weights(made, training=True)
            changed = differing(before, parameters)
            assert not changed, f"use_weights does not give back {', '.join(changed)}"
        assert not differing(others, parameters), "measurements change how training goes on"

    def test_a_model_learns(self, component: Any, catalogue: Catalogue, tiny_model: Path, tmp_path: Path) -> None:
        """The loss of a small model falls when it is trained with it."""
        from lmflow_core.testing.jobs import make_job, single

        objectives = catalogue.of(ObjectiveSpec)
        if "sft" not in objectives:
            pytest.skip("no objective 'sft' is installed")
        data = [single(list(range(start, start + 12))) for start in (3, 40)]
        settings = TrainingSettings(lr=self.learning_rate, warmup_ratio=0, max_steps=6, epochs=6, logging_steps=1)
        job = make_job(tiny_model, tmp_path / "checkpoints", settings, data, optimizer=component)
        losses = [point.value for point in objectives.load("sft")(None).train(job).training["loss"]]
        assert losses[-1] < losses[0], f"the loss went from {losses[0]} to {losses[-1]} in six steps"


def _settings(rate: float = _RATE, decay: float = 0.0) -> TrainingSettings:
    return TrainingSettings(lr=rate, weight_decay=decay)


def _group(parameters: Parameters, **more: Any) -> ParameterGroup:
    return ParameterGroup(parameters, **more)


def _parameters(seed: int = 0) -> Parameters:
    """Return parameters of every shape, the same for the same seed."""
    import torch

    source = torch.Generator().manual_seed(seed)
    return {name: torch.nn.Parameter(torch.randn(shape, generator=source)) for name, shape in _SHAPES.items()}


def _gradients(step: int) -> Gradients:
    """Return the gradients of a step, by the name and the parameter."""
    import torch

    def gradient(name: str, parameter: Any) -> Any:
        source = torch.Generator().manual_seed(100 * step + len(name))
        found = torch.randn(parameter.shape, generator=source)
        if name == "embedding":
            found[step % 3 :: 3] = 0
        return found

    return gradient


def _but_for(names: Container[str], gradients: Gradients) -> Gradients:
    """Return gradients, none for some parameters."""
    return lambda name, parameter: None if name in names else gradients(name, parameter)


def _step(optimizer: Any, parameters: Parameters, gradients: Gradients) -> None:
    optimizer.zero_grad(set_to_none=True)
    for name, parameter in parameters.items():
        found = gradients(name, parameter.detach())
        parameter.grad = None if found is None else found.clone()
    optimizer.step()


def _run(
    component: Any,
    *,
    rate: float = _RATE,
    lr_factor: float = 1.0,
    decay: float = _DECAY,
    decays: bool = True,
    schedule: float = 1.0,
    gradients: Gradients | None = None,
) -> Mapping[str, Any]:
    """Return the parameters after three steps under a constant schedule."""
    import torch

    parameters = _parameters()
    group = _group(parameters, lr_factor=lr_factor, decays=decays)
    made = component.make([group], _settings(rate, decay))
    scheduler = torch.optim.lr_scheduler.LambdaLR(made, lambda _: schedule)
    for step in range(3):
        _step(made, parameters, gradients or _gradients(step))
        scheduler.step()
    return {name: parameter.detach() for name, parameter in parameters.items()}


def _assert_close(found: Mapping[str, Any], wanted: Mapping[str, Any], told: str) -> None:
    import torch

    apart: Sequence[str] = [name for name in wanted if not torch.allclose(found[name], wanted[name], rtol=1e-5)]
    assert not apart, f"{told}: {', '.join(apart)}"
