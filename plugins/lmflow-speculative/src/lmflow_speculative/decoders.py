"""The decoders: each makes its drafter for an answer, and shares the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch

from lmflow_core.api import DecodeStep, RequestError
from lmflow_speculative.caching import CachedNetwork
from lmflow_speculative.checking import checked
from lmflow_speculative.drafters import LookupDrafter, NetworkDrafter
from lmflow_speculative.drafts import Drafter
from lmflow_speculative.drawing import Drawing
from lmflow_speculative.networks import check_attention, check_vocabulary, draft_model, first_layers, parameters
from lmflow_speculative.options import (
    DraftModelOptions,
    DrawingOptions,
    PromptLookupOptions,
    SelfSpeculativeOptions,
)
from lmflow_speculative.pace import Pace
from lmflow_transformers.api import CausalModel, few_rows_are_quick, follows_length


class _DraftingDecoder(ABC):
    """Draws tokens as the decoder ``sampling`` does, several per pass of the model where drafts hold."""

    def __init__(self, options: DrawingOptions) -> None:
        self._drawing_options = options

    @abstractmethod
    def _drafter(self, model: CausalModel, drawing: Drawing) -> Drafter:
        """Return what drafts one answer.

        Raises:
            LmflowError: it cannot draft for this model.
        """

    @torch.inference_mode()
    def decode(
        self,
        model: CausalModel,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        stop_ids: frozenset[int],
        seed: int,
    ) -> Iterator[DecodeStep]:
        """Yield the tokens of each pass.

        Raises:
            RequestError: positions of the model depend on the length of a pass, so drafts would change the answer.
            ModelError: the model cannot be drafted for.
        """
        if follows_length(model.base.config):
            raise RequestError(
                f"the rotary positions of {model.reference} depend on the length of the text, so drafts would change "
                "the answer: use --decoder sampling"
            )
        check_attention(model.base, model.reference)
        options = self._drawing_options
        drawing = Drawing(options, torch.Generator(model.device).manual_seed(seed))
        drafter = self._drafter(model, drawing)
        yield from checked(
            CachedNetwork(model.network, model.device),
            drafter,
            drawing,
            Pace(options.draft_length, drafter.cost, few_rows_are_quick(model.base)),
            prompt,
            options,
            max_new_tokens=max_new_tokens,
            stop_ids=stop_ids,
        )


class PromptLookupDecoder(_DraftingDecoder):
    """Drafts are looked up in the prompt and the answer so far."""

    def __init__(self, options: PromptLookupOptions | None = None) -> None:
        self._options = options or PromptLookupOptions()
        super().__init__(self._options)

    def _drafter(self, model: CausalModel, drawing: Drawing) -> Drafter:
        return LookupDrafter(self._options.lookup_ngram)


class DraftModelDecoder(_DraftingDecoder):
    """Drafts are drawn from a second, smaller model.

    Raises:
        RequestError: no draft model is named.
    """

    def __init__(self, options: DraftModelOptions | None = None) -> None:
        if options is None or options.draft_model is None:
            raise RequestError("--decoder speculative needs --draft-model REF: a smaller model with the same tokenizer")
        self._reference = options.draft_model
        super().__init__(options)

    def _drafter(self, model: CausalModel, drawing: Drawing) -> Drafter:
        dtype = str(model.dtype).removeprefix("torch.")
        draft = draft_model(self._reference, str(model.device), dtype)
        check_vocabulary(model, draft.model, "--draft-model")
        check_attention(draft.model.base, draft.model.reference)
        network = CachedNetwork(draft.model.network, draft.model.device)
        cost = parameters(draft.model.base) / parameters(model.base)
        return NetworkDrafter(network, drawing, _vocabulary(model), cost, draft.tokens)


class SelfSpeculativeDecoder(_DraftingDecoder):
    """Drafts are drawn from the model's own first layers."""

    def __init__(self, options: SelfSpeculativeOptions | None = None) -> None:
        self._options = options or SelfSpeculativeOptions()
        super().__init__(self._options)

    def _drafter(self, model: CausalModel, drawing: Drawing) -> Drafter:
        short = first_layers(model.base, self._options.draft_layers)
        network = CachedNetwork(short, model.device)
        cost = parameters(short) / parameters(model.base)
        return NetworkDrafter(network, drawing, _vocabulary(model), cost)


def _vocabulary(model: CausalModel) -> int:
    """Return how many tokens the model gives logits for."""
    return int(model.base.get_output_embeddings().weight.shape[0])
