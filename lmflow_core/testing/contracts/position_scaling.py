"""The contract of position scalings: which frequencies come of them, and that nothing else does."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lmflow_core.config.request import Component
from lmflow_core.contracts.position_scaling import PositionScaling, Rope
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.contracts.tokens import EncodedSequence
from lmflow_core.errors import LmflowError
from lmflow_core.models.opening import open_model
from lmflow_core.options import build
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.contracts.base import ComponentContract
from lmflow_core.testing.frequencies import frequencies, known_types, unscaled

_FACTORS = (1.0, 1.5, 4.0, 32.0)
_NEAR = 1e-5
# The second text is longer than the small model was made for, and not than it reaches when it is scaled.
_TEXTS = [[5 + n * 37 % 390 for n in range(length)] for length in (40, 400)]


def _rope(theta: float, dimension: int, length: int) -> Rope:
    return Rope({"rope_type": "default", "rope_theta": theta}, dimension, length)


class PositionScalingContract(ComponentContract):
    """What a position scaling must do: by its numbers, and in a small model that is scaled four times.

    Attributes:
        ropes: rotary embeddings that are scaled; others where the options fit certain ones only.
        wrong_options: values of options that do not fit the first of them, each to be refused.
    """

    kind: ClassVar[str] = "position_scaling"
    ropes: ClassVar[Sequence[Rope]] = (_rope(1e4, 8, 256), _rope(5e5, 64, 2048), _rope(1e4, 96, 4097))
    wrong_options: ClassVar[Sequence[Mapping[str, object]]] = ()

    @classmethod
    def made(cls, target: Any, option_values: Any) -> Any:
        """Return the function itself."""
        return target

    @pytest.fixture(scope="class")
    @classmethod
    def scale(cls, target: PositionScaling, option_values: Any, number_format: Any) -> Callable[[Rope, float], Rope]:
        """Return the scaling with its options."""
        return lambda rope, factor: target(rope, factor, option_values)

    @pytest.fixture(scope="class")
    @classmethod
    def number_format(cls) -> Iterator[Any]:
        """Return torch's number format from before the first call; it is put back behind the last."""
        import torch

        before = torch.get_default_dtype()
        yield before
        torch.set_default_dtype(before)

    def test_factor_one_changes_no_frequency(self, scale: Callable[[Rope, float], Rope]) -> None:
        """A factor of 1 leaves every frequency, the attention and the length as they are."""
        for rope in copy.deepcopy(self.ropes):
            scaled = scale(rope, 1.0)
            assert scaled.length == rope.length, f"by a factor of 1 the length {rope.length} becomes {scaled.length}"
            for length in (rope.length // 2, rope.length, 2 * rope.length):
                found, attention = frequencies(scaled, length)
                assert found == pytest.approx(unscaled(rope), rel=_NEAR), "a factor of 1 changes frequencies"
                assert attention == pytest.approx(1.0), f"a factor of 1 multiplies cosines and sines by {attention}"

    def test_the_length_grows_by_the_factor(self, scale: Callable[[Rope, float], Rope]) -> None:
        """The length is multiplied by the factor, or the type is one that multiplies it by itself."""
        for rope in copy.deepcopy(self.ropes):
            for factor in _FACTORS:
                scaled = scale(rope, factor)
                grows_itself = scaled.parameters.get("rope_type") == "dynamic"
                reach = scaled.length * (scaled.parameters["factor"] if grows_itself else 1)
                wanted = rope.length * factor
                assert abs(reach - wanted) <= 1, f"{rope.length} tokens, {factor} times as far, are {reach}"
                assert isinstance(scaled.length, int), f"the length {scaled.length} is no whole number"
                assert scaled.dimension == rope.dimension, f"the dimension {rope.dimension} became {scaled.dimension}"

    def test_parameters_are_plain(self, scale: Callable[[Rope, float], Rope]) -> None:
        """Parameters are of a type that transformers knows, and plain values that JSON holds as they are."""
        for rope in copy.deepcopy(self.ropes):
            parameters = dict(scale(rope, 4.0).parameters)
            kind = parameters.get("rope_type", "default")
            assert kind in known_types(), f"transformers knows no rope_type {kind!r}"
            try:
                again = json.loads(json.dumps(parameters, allow_nan=False))
            except (TypeError, ValueError) as error:
                pytest.fail(f"the parameters cannot be written as JSON: {error}")
            assert again == parameters, f"JSON turns the parameters {parameters} into {again}"

    def test_it_is_a_function_of_its_numbers(self, scale: Callable[[Rope, float], Rope], number_format: Any) -> None:
        """It changes nothing it is given and nothing in the process, and gives the same again."""
        import torch

        torch.set_default_dtype(number_format)
        for rope in copy.deepcopy(self.ropes):
            given, before = copy.deepcopy(rope), _surroundings()
            first = copy.deepcopy(scale(rope, 4.0))
            assert rope == given, "it changed the rotary embeddings it was given"
            scale(rope, 2 * _FACTORS[-1])
            assert scale(rope, 4.0) == first, "called again, it gives something else"
            changed = [name for name, value in _surroundings().items() if value != before[name]]
            assert not changed, f"it changed {' and '.join(changed)}"

    def test_frequencies_only_slow_down(self, scale: Callable[[Rope, float], Rope]) -> None:
        """At the length that is reached, no frequency is faster than unscaled, and the slowest is slower."""
        for rope in copy.deepcopy(self.ropes):
            plain = unscaled(rope)
            for factor in _FACTORS[1:]:
                found, attention = frequencies(scale(rope, factor), round(rope.length * factor))
                assert len(found) == len(plain), f"{len(found)} frequencies, where there are {len(plain)}"
                assert all(math.isfinite(value) and value > 0 for value in [*found, attention]), "no positive numbers"
                faster = [place for place, value in enumerate(found) if value > plain[place] * (1 + _NEAR)]
                assert not faster, f"by a factor of {factor} these frequencies are faster: {faster}"
                assert found[-1] < plain[-1] * (1 - _NEAR), f"a factor of {factor} does not slow the slowest frequency"

    def test_a_larger_factor_slows_more(self, scale: Callable[[Rope, float], Rope]) -> None:
        """A larger factor makes no frequency faster."""
        for rope in copy.deepcopy(self.ropes):
            steps = [frequencies(scale(rope, factor), round(rope.length * factor))[0] for factor in _FACTORS]
            for factor, slow, fast in zip(_FACTORS[1:], steps[1:], steps, strict=False):
                faster = [n for n, (a, b) in enumerate(zip(slow, fast, strict=True)) if a > b * (1 + _NEAR)]
                assert not faster, f"a factor of {factor} has faster frequencies than a smaller one: {faster}"

    def test_wrong_options_are_refused(self, spec: Any, target: PositionScaling) -> None:
        """Options that do not fit a model are refused with an error that says so."""
        if spec.options is None:
            return
        if not self.wrong_options:
            pytest.skip("which options do not fit a model: give wrong_options")
        for values in self.wrong_options:
            with pytest.raises(LmflowError):
                target(copy.deepcopy(self.ropes[0]), 4.0, build(spec.options, values))

    def test_plain_transformers_loads_a_scaled_model(
        self, provided: Any, option_values: Any, catalogue: Catalogue, peaked_model: Path, tmp_path: Path
    ) -> None:
        """A scaled model, saved, gives the same likelihoods in plain transformers, and others than unscaled."""
        pytest.importorskip("lmflow_transformers", reason="models are opened by lmflow-transformers")
        from lmflow_core.testing.tensors import plain_nll

        settings = ModelSettings(model=str(peaked_model), device="cpu")
        by_four = replace(settings, position_scaling=provided.qualified, position_scaling_factor=4.0)
        scaling = Component(provided.qualified, provided, option_values)
        try:
            scaled = open_model(by_four, catalogue, scaling=scaling).load()
        except LmflowError as error:
            pytest.fail(f"a model of 8 rotated features cannot be scaled: {error}")
        scaled.save(tmp_path, None)
        texts = [EncodedSequence(ids, ids) for ids in _TEXTS]
        wanted = [score.nll for score in scaled.score(texts)]
        assert plain_nll(tmp_path, _TEXTS) == pytest.approx(wanted, rel=1e-4), "plain transformers gives others"
        before = [score.nll for score in open_model(settings, catalogue).load().score(texts)]
        assert wanted[1] != pytest.approx(before[1], rel=1e-6), "beyond the trained length, nothing is scaled"


def _surroundings() -> dict[str, Any]:
    """Return what a function of numbers leaves as it was."""
    import random

    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    return {
        "transformers' table of rotary embeddings": dict(ROPE_INIT_FUNCTIONS),
        "transformers' configuration of Llama": LlamaConfig().to_dict(),
        "torch's number format": torch.get_default_dtype(),
        "torch's random state": torch.get_rng_state().tolist(),
        "Python's random state": random.getstate(),
    }
