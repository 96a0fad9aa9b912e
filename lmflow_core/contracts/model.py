"""Models: how one is opened, and what an open one does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lmflow_core.contracts.position_scaling import PositionScaling
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.contracts.spec import TORCH, Spec
from lmflow_core.contracts.tokens import Encoded, Tokenizer


@dataclass(frozen=True)
class Score:
    """Negative log-likelihood of one example: summed over its labelled tokens, in nats, and their number.

    ``correct`` is how many of them were the model's likeliest token, where the runtime counts that. When all were,
    greedy decoding writes exactly them.
    """

    nll: float
    tokens: int
    correct: int | None = None


class LanguageModel(Protocol):
    """A model that is open: its tokenizer at once, its weights after :meth:`load`.

    Attributes:
        folder: where the model's own files are, in transformers' form and without any adapter; None when they are
            nowhere, as for a model that was converted while it was opened.
        adapter: the folder of the adapter that is on the model or waits for its weights.
    """

    reference: str
    tokenizer: Tokenizer
    context_length: int | None
    folder: Path | None
    adapter: Path | None

    def load(self) -> None:
        """Load the weights, once.

        Raises:
            ModelError: the weights are missing or damaged.
        """

    def score(self, examples: Iterable[Encoded]) -> Iterator[Score]:
        """Yield the score of each example, in order."""

    def save(self, folder: Path, chat_template: str | None) -> None:
        """Write weights (safetensors), configuration and tokenizer into an existing folder."""


class Rescalable(Protocol):
    """A model whose rotary positions can be scaled before its weights are loaded."""

    def scale_positions(self, name: str, scaling: PositionScaling, factor: float, options: Any) -> None:
        """Scale the positions of the network that :meth:`LanguageModel.load` will build, and keep it in what is saved.

        Raises:
            RequestError: the model has no rotary embeddings, or is scaled already.
        """


class ChoosableAttention(Protocol):
    """A model whose attention can be chosen before its weights are loaded."""

    def attend_with(self, implementation: str) -> None:
        """Let the network that :meth:`LanguageModel.load` will build attend with what :class:`Attention` gave."""


class ModelLoader(Protocol):
    """Target of a ``ModelSpec``."""

    def open(self, reference: str, settings: ModelSettings) -> LanguageModel:
        """Open a model without loading its weights.

        Raises:
            ModelError: the reference names no model that this loader can open.
        """


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A way to open a model; ``target`` is called with no argument and satisfies ``ModelLoader``.

    Attributes:
        ``references``: the forms of ``--model`` it opens besides its own name: ``folder``, ``hub``, ``gguf``.
        ``native``: those of them that it runs as they are; it goes before a loader that converts them.
        ``runtime``: what the model runs in. Training needs ``torch``; a decoder works in one runtime.
        ``decoder``: the decoder that is used with it when none is chosen.
        ``adapter_suffix``: the ending of a file that it puts on itself as an adapter, when it does.
        ``template``: names the conversation template the model was trained with.

    Example::

        @hookimpl
        def lmflow_register_models():
            yield ModelSpec(
                name="tinyllama", target="lmflow_tinyllama.loader:TinyLlamaLoader", summary="TinyLlama, converted once."
            )
    """

    kind: ClassVar[str] = "model"
    contract: ClassVar[type | None] = ModelLoader
    references: tuple[str, ...] = ()
    native: tuple[str, ...] = ()
    runtime: str = TORCH
    decoder: str = "sampling"
    adapter_suffix: str | None = None
    template: str | None = None
