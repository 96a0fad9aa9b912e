"""What the checks of decoders share: a loaded model, and decoders that are ready to drive it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from lmflow_core.contracts.decoder import Decoder, DecodeStep, DecodingRequest
from lmflow_core.contracts.model import LanguageModel, ModelServices
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.errors import RequestError
from lmflow_core.generation.second_models import Models
from lmflow_core.models.opening import open_model
from lmflow_core.options import build, fields_of
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.batches import ids_of
from lmflow_core.testing.contracts.base import ComponentContract, filled
from lmflow_core.testing.forms import made_for

# It repeats itself, so that what looks for repetitions finds some.
PROMPT = (40, 90, 200, 7, 40, 90, 200, 7, 40, 90)
PROMPTS = (PROMPT, (40,), (300, 17, 300, 17, 300), tuple(range(100, 150)), (9, 8, 7, 6, 5, 6, 7, 8, 9))

# Makes a decoder with some options other than those of the contract, prepared for the model.
Make = Callable[[Mapping[str, object]], Decoder]


class DecodingContract(ComponentContract):
    """The fixtures and attributes of :class:`DecoderContract`."""

    kind: ClassVar[str] = "decoder"
    reference: ClassVar[str | None] = None
    vocabulary: ClassVar[int] = 400
    greedy: ClassVar[Mapping[str, object]] = {"temperature": 0.0}
    sampled: ClassVar[Mapping[str, object]] = {"temperature": 1.0}
    tolerance: ClassVar[float] = 1e-2

    @pytest.fixture(scope="class")
    @classmethod
    def model(
        cls, spec: Any, target: Any, catalogue: Catalogue, request: pytest.FixtureRequest, tmp_path_factory: Any
    ) -> LanguageModel:
        """Return the loaded model that is driven."""
        reference = filled(cls.reference, request)
        if reference is None:
            folder = request.getfixturevalue("peaked_model")
            reference = made_for(spec.runtime, folder, catalogue, tmp_path_factory.mktemp("form"))
        if reference is None:
            pytest.skip(f"it drives models of {spec.runtime}: give the reference of one")
        settings = ModelSettings(model=str(reference), device="cpu")
        return open_model(settings, catalogue, runtime=spec.runtime).load()

    @pytest.fixture(scope="class")
    @classmethod
    def services(cls, spec: Any, catalogue: Catalogue) -> ModelServices:
        """Return what opens a second model."""
        return Models(catalogue, spec.runtime)

    @pytest.fixture(scope="class")
    @classmethod
    def make(
        cls,
        spec: Any,
        target: Any,
        option_values: Any,
        values: dict[str, object],
        model: LanguageModel,
        services: ModelServices,
    ) -> Make:
        """Return what makes a decoder with some other options, prepared for the model."""
        known = {field.name for field in fields_of(spec.options)} if spec.options else set()

        def make(others: Mapping[str, object]) -> Decoder:
            if unknown := sorted(others.keys() - known):
                pytest.skip(f"it has no option {unknown[0]}: give greedy and sampled, the options that make it so")
            options = build(spec.options, {**values, **others}) if spec.options else None
            decoder: Decoder = cls.made(target, options)
            try:
                decoder.prepare(model, services)
            except RequestError as error:
                pytest.skip(f"it cannot drive the model: give the options or the reference it needs: {error}")
            return decoder

        return make

    @pytest.fixture(scope="class")
    @classmethod
    def stops(cls, model: LanguageModel) -> frozenset[int]:
        """Return the tokens that end a text of the model, which a runtime may know for itself."""
        return frozenset(model.tokenizer.control_tokens.values())

    @pytest.fixture(scope="class")
    @classmethod
    def needs_exact(cls, spec: Any) -> None:
        """Leave out what is true of exact decoders only."""
        if not spec.exact:
            pytest.skip("its spec does not promise the model's own tokens (exact)")


def answer_of(decoder: Decoder, model: LanguageModel, request: DecodingRequest) -> list[int]:
    """Return the tokens of an answer."""
    return ids_of(decoder.decode(model, request))


def answers_of(decoder: Decoder, model: LanguageModel, requests: Sequence[DecodingRequest]) -> list[list[int]]:
    """Return the tokens of some answers, written one behind the other."""
    return [answer_of(decoder, model, request) for request in requests]


def steps_of(decoder: Decoder, model: LanguageModel, request: DecodingRequest) -> list[DecodeStep]:
    """Return the steps of an answer."""
    return list(decoder.decode(model, request))
