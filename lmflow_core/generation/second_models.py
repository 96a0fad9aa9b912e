"""Second models, for components that work with one, a draft, a teacher, a judge: opened, and encoded for."""

from __future__ import annotations

from collections.abc import Sequence

from lmflow_core.contracts.examples import Example
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.contracts.spec import TORCH
from lmflow_core.contracts.tokens import EncodedExample
from lmflow_core.data.encoding import Encoder
from lmflow_core.models.opening import OpenModel, open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.templates.choosing import choose_template_for


class Models:
    """Opens models beside another one, keeps the last, and encodes for it. Satisfies ``ModelServices``.

    Args:
        catalogue: the components there are.
        runtime: what the model runs in that others are opened beside, as the spec of its loader or decoder tells.
    """

    def __init__(self, catalogue: Catalogue, runtime: str = TORCH) -> None:
        self._catalogue = catalogue
        self._runtime = runtime
        self._last: tuple[ModelSettings, OpenModel, LanguageModel] | None = None

    @property
    def opened(self) -> tuple[LanguageModel, ...]:
        """The model that is kept, if any was opened."""
        return () if self._last is None else (self._last[2],)

    def open_model(self, reference: str, beside: LanguageModel | None) -> LanguageModel:
        """Open, without its weights, what ``--model`` could name.

        It goes where ``beside`` is, in the same number format; without one, where it would go alone. The model opened
        last is kept.

        Raises:
            ModelError: the reference names no model.
            RequestError: it does not run where the other one does.
        """
        settings = _settings(reference, beside)
        if self._last is None or self._last[0] != settings:
            self._last = None  # gives its memory back before the next model takes more
            opened = self._opened(settings, beside)
            self._last = settings, opened, _with_its_adapter(opened)
        return self._last[2]

    def encode_for(self, model: LanguageModel, examples: Sequence[Example]) -> list[EncodedExample]:
        """Encode examples as the model that was opened last wants them: with its tokenizer and its own template.

        Raises:
            ValueError: an example does not fit the template.
            RequestError: the model tells no template, and a conversation needs one.
        """
        assert self._last is not None, "a model is opened before anything is encoded for it"
        assert self._last[2] is model, "another model was opened since"
        _, template = choose_template_for(examples, None, self._last[1], self._catalogue)
        return Encoder(model.tokenizer, template, media=model.media).encode(examples)

    def _opened(self, settings: ModelSettings, beside: LanguageModel | None) -> OpenModel:
        needed_by = "this command" if beside is None else f"working beside {beside.reference}"
        return open_model(settings, self._catalogue, runtime=self._runtime, needed_by=needed_by)


def _settings(reference: str, beside: LanguageModel | None) -> ModelSettings:
    if beside is None:
        return ModelSettings(model=reference)
    dtype = beside.plan.compute_dtype or beside.plan.dtype
    return ModelSettings(model=reference, device=beside.plan.device, dtype=dtype)


def _with_its_adapter(opened: OpenModel) -> LanguageModel:
    """Return the open model; one with an adapter is loaded, as the model alone would leave the adapter off."""
    return opened.model if opened.adapter is None else opened.load()
