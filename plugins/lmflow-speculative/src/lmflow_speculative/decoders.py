"""The decoders: each makes its drafter for an answer, and shares the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch

from lmflow_core.api import BatchLimits, DecodeStep, DecodingRequest, ModelServices, RequestError
from lmflow_speculative.caching import CachedNetwork
from lmflow_speculative.checking import checked
from lmflow_speculative.drafters import LookupDrafter, NetworkDrafter
from lmflow_speculative.drafts import Drafter
from lmflow_speculative.lookup_chooser import LookupChooser
from lmflow_speculative.networks import (
    DraftNetwork,
    check_attention,
    draft_network,
    first_layers,
    parameters,
)
from lmflow_speculative.options import (
    DraftingOptions,
    DraftModelOptions,
    PromptLookupOptions,
    SelfSpeculativeOptions,
)
from lmflow_speculative.pace import Pace
from lmflow_speculative.sampling_rule import SamplingRule
from lmflow_transformers.api import (
    CausalModel,
    SharedBatch,
    WholeText,
    check_sampling,
    check_vocabulary,
    few_rows_are_quick,
    follows_length,
    logits_processors,
    open_shared_batch,
)


class _DraftingDecoder(ABC):
    """Samples tokens as the decoder ``sampling`` does, several per pass of the model where drafts hold."""

    def __init__(self, options: DraftingOptions) -> None:
        self._drafting_options = options

    def prepare(self, model: CausalModel, services: ModelServices) -> None:
        """Check that a loaded model can be drafted for.

        Raises:
            RequestError: positions of the model depend on the length of a pass, so drafts would change the answer; or
                its tokens cannot be sampled by the options.
            ModelError: the model cannot be drafted for.
        """
        if follows_length(model.base.config):
            raise RequestError(
                f"the rotary positions of {model.reference} depend on the length of the text, so drafts would change "
                "the answer: use --decoder sampling"
            )
        check_attention(model.base, model.reference)
        check_sampling(model, self._drafting_options)

    @abstractmethod
    def _drafter(self, model: CausalModel, rule: SamplingRule) -> Drafter:
        """Return what drafts one answer."""

    @torch.inference_mode()
    def decode(self, model: CausalModel, request: DecodingRequest) -> Iterator[DecodeStep]:
        """Yield the tokens of each pass."""
        options = self._drafting_options
        generator = torch.Generator(model.device).manual_seed(request.seed)
        rule = SamplingRule(logits_processors(model, options, request), options.temperature == 0, generator)
        drafter = self._drafter(model, rule)
        network = CachedNetwork(model.network, model.device)
        pace = Pace(options.draft_length, drafter.cost, few_rows_are_quick(model.base))
        yield from checked(network, drafter, rule, pace, request, options)


class PromptLookupDecoder(_DraftingDecoder):
    """Drafts are looked up in the prompt and the answer so far."""

    def __init__(self, options: PromptLookupOptions | None = None) -> None:
        self._options = options or PromptLookupOptions()
        super().__init__(self._options)

    def _drafter(self, model: CausalModel, rule: SamplingRule) -> Drafter:
        return LookupDrafter(self._options.lookup_ngram)

    def open_batch(self, model: CausalModel, limits: BatchLimits) -> SharedBatch | None:
        """Return a batch whose answers share the passes of the model; None where this model keeps no texts apart."""
        return open_shared_batch(model, limits)

    def layout(self, model: CausalModel) -> WholeText:
        """Return how the texts of a batch are kept."""
        return WholeText()

    def chooser(self, model: CausalModel, request: DecodingRequest) -> LookupChooser:
        """Return what chooses the tokens of an answer of a batch."""
        return LookupChooser(model, self._options, request)


class DraftModelDecoder(_DraftingDecoder):
    """Drafts are sampled from a second, smaller model.

    Raises:
        RequestError: no draft model is named.
    """

    def __init__(self, options: DraftModelOptions | None = None) -> None:
        if options is None or options.draft_model is None:
            raise RequestError("--decoder speculative needs --draft-model REF: a smaller model with the same tokenizer")
        self._reference = options.draft_model
        self._draft: DraftNetwork | None = None
        super().__init__(options)

    def prepare(self, model: CausalModel, services: ModelServices) -> None:
        """Open the draft model beside the model, and load it where it is not loaded yet.

        Raises:
            RequestError: positions of the model depend on the length of a pass, so drafts would change the answer.
            ModelError: one of the models keeps a running state, the draft model cannot be opened, or it has another
                vocabulary.
        """
        super().prepare(model, services)
        draft: CausalModel = services.open_model(self._reference, beside=model)  # type: ignore[assignment]
        check_vocabulary(model, draft, "--draft-model")
        draft.load()
        check_attention(draft.base, draft.reference)
        self._draft = draft_network(draft)

    def _drafter(self, model: CausalModel, rule: SamplingRule) -> Drafter:
        assert self._draft is not None, "prepare() comes first"
        network = CachedNetwork(self._draft.network, model.device)
        cost = parameters(self._draft.network) / parameters(model.base)
        return NetworkDrafter(network, rule, _vocabulary(model), cost, self._draft.tokens)


class SelfSpeculativeDecoder(_DraftingDecoder):
    """Drafts are sampled from the model's own first layers."""

    def __init__(self, options: SelfSpeculativeOptions | None = None) -> None:
        self._options = options or SelfSpeculativeOptions()
        super().__init__(self._options)

    def prepare(self, model: CausalModel, services: ModelServices) -> None:
        """Check that the model has more layers than draft.

        Raises:
            RequestError: it has not, or its positions depend on the length of a pass.
            ModelError: it keeps no list of layers, or a running state.
        """
        super().prepare(model, services)
        first_layers(model.base, self._options.draft_layers)

    def _drafter(self, model: CausalModel, rule: SamplingRule) -> Drafter:
        short = first_layers(model.base, self._options.draft_layers)
        network = CachedNetwork(short, model.device)
        cost = parameters(short) / parameters(model.base)
        return NetworkDrafter(network, rule, _vocabulary(model), cost)


def _vocabulary(model: CausalModel) -> int:
    """Return how many tokens the model gives logits for."""
    return int(model.base.get_output_embeddings().weight.shape[0])
