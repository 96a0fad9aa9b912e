"""The decoder ``streaming``: samples tokens as ``sampling`` does, from a text that may be longer than the context."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lmflow_core.api import BatchLimits, DecodeStep, DecodingRequest, ModelServices, RequestError
from lmflow_streaming.options import StreamingOptions
from lmflow_streaming.rotation import rotations
from lmflow_streaming.window import Window, WindowLayout
from lmflow_transformers.api import (
    CausalModel,
    SharedBatch,
    TokenChooser,
    check_sampling,
    chosen_tokens,
    follows_length,
    open_shared_batch,
    takes_attention_mask,
)


class StreamingDecoder:
    """Samples each token from what the window shows of the text."""

    def __init__(self, options: StreamingOptions | None = None) -> None:
        self._options = options or StreamingOptions()
        self._last: deque[tuple[CausalModel, Window]] = deque(maxlen=1)

    @torch.inference_mode()
    def prepare(self, model: CausalModel, services: ModelServices) -> None:
        """Check that a loaded model can be read through the window, and measure how it rotates its keys.

        Raises:
            RequestError: it cannot; see :func:`window_layout`; or its tokens cannot be sampled by the options.
        """
        check_sampling(model, self._options)
        self._opened(model)

    @torch.inference_mode()
    def decode(self, model: CausalModel, request: DecodingRequest) -> Iterator[DecodeStep]:
        """Yield one token at a time. A text that fits the window is read as ``sampling`` reads it."""
        window = self._window(model, request.prompt)
        unread: torch.Tensor | None = torch.tensor([list(request.prompt[window.seen :])], device=model.device)

        def read(fresh: torch.Tensor) -> torch.Tensor:
            nonlocal unread
            ids, unread = fresh if unread is None else unread, None
            return window.read(ids)

        told = 0
        try:
            for step in chosen_tokens(self.chooser(model, request), read, request, model.device):
                yield replace(step, dropped=window.dropped - told)
                told = window.dropped
        finally:
            self._last.append((model, window))

    def open_batch(self, model: CausalModel, limits: BatchLimits) -> SharedBatch | None:
        """Return a batch whose answers share the passes of the model; None where this model keeps no texts apart."""
        return open_shared_batch(model, limits)

    def layout(self, model: CausalModel) -> WindowLayout:
        """Return how much of each text of a batch is seen."""
        return window_layout(model, self._options.attention_window, self._options.attention_sinks)

    def chooser(self, model: CausalModel, request: DecodingRequest) -> TokenChooser:
        """Return what chooses the tokens of an answer of a batch."""
        return TokenChooser(model, self._options, request)

    def _window(self, model: CausalModel, prompt: Sequence[int]) -> Window:
        """Return a window that has read nothing, or the last one where the prompt goes on with what that has read.

        So a turn of a long chat costs its own tokens alone. While nothing is dropped all is read anew, as ``sampling``
        does it, as passes that are cut otherwise agree to rounding and not to the last bit.
        """
        try:
            owner, last = self._last.pop()  # one thread gets it
        except IndexError:
            owner = last = None
        if last is not None and owner is model and last.dropped and last.goes_on_with(prompt):
            return last
        return self._opened(model)

    def _opened(self, model: CausalModel) -> Window:
        return Window(model, self.layout(model))


def open_window(model: CausalModel, size: int | None, sinks: int) -> Window:
    """Return a window onto a text that a model has not begun to read; see :func:`window_layout`."""
    return Window(model, window_layout(model, size, sinks))


def window_layout(model: CausalModel, size: int | None, sinks: int) -> WindowLayout:
    """Return how much a model is to see of a text.

    Args:
        model: loaded.
        size: tokens of the window; the model's context when None.
        sinks: how many of them are the first of the text.

    Raises:
        RequestError: the window is larger than the model's context or not larger than the sinks; or the model has no
            rotary embeddings, has some that follow the length of the text, layers that do not see the whole text, or an
            attention that takes no attention mask.
    """
    context = model.context_length
    if size is None and context is None:
        raise RequestError(f"{model.reference} does not tell its context: add --attention-window N")
    chosen = size or context or 0
    if context is not None and chosen > context:
        raise RequestError(
            f"--attention-window {chosen}: {model.reference} was made for {context} tokens; take at most as many"
        )
    if sinks >= chosen:
        raise RequestError(f"--attention-sinks {sinks} must be smaller than the window, which is {chosen} tokens")
    _check(model)
    return WindowLayout(chosen, sinks, rotations(model))


def _check(model: CausalModel) -> None:
    base = model.base
    if follows_length(base.config):
        raise RequestError(
            f"--decoder streaming: the rotary positions of {model.reference} depend on the length of the text"
        )
    if getattr(base, "_is_stateful", False) or any(
        type(layer) is not DynamicLayer for layer in DynamicCache(config=base.config).layers
    ):
        raise RequestError(
            f"--decoder streaming: {model.reference} has layers with a window or a state of their own; every layer "
            "must see the whole text"
        )
    if not takes_attention_mask(base):
        raise RequestError(
            "--decoder streaming masks what it dropped, and --attention takes no attention mask: leave it out"
        )
