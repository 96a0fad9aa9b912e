"""Models: how one is opened, and what an open one does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from lmflow_core.contracts.examples import Example
from lmflow_core.contracts.position_scaling import ScaledPositions
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.contracts.spec import TORCH, Spec
from lmflow_core.contracts.tokens import EncodedExample, EncodedSequence, MediaTokenizer, Tokenizer

# The tasks of load plans by which a network predicts tokens.
PREDICTING = ("causal", "image-text")


@dataclass(frozen=True)
class Score:
    """Negative log-likelihood of one sequence: summed over its labelled tokens, in nats, and their number.

    ``correct`` is how many of them were the model's likeliest token, where the runtime counts that. When all were,
    greedy decoding writes exactly them.
    """

    nll: float
    tokens: int
    correct: int | None = None


@dataclass(frozen=True)
class Quantization:
    """How the linear layers of a model but its head are quantised while they are read.

    Attributes:
        form: of the weights: ``nf4`` or ``fp4``, four bits in blocks (arXiv:2305.14314), or ``int8``, eight bits in
            rows (arXiv:2208.07339). A runtime refuses one that it does not know.
        double: the factors of the blocks are quantised too; ``int8`` has no blocks.
        compute_dtype: number format in which weights of four bits are multiplied; ``auto`` is that of the others.
    """

    form: str
    double: bool = False
    compute_dtype: str = "auto"


@dataclass(frozen=True)
class LoadPlan:
    """How the weights of a model are read. Who has a say adds to it before that; the model refuses what it cannot do.

    Attributes:
        task: what the network gives: ``causal`` (the next token), ``regression`` (a number for a sequence), or
            ``image-text`` (the next token, of text with images).
        dtype: number format of the weights; ``auto`` is what suits the device.
        compute_dtype: number format of the computation where it is not that of the weights.
        device: where the weights go; ``auto`` is a GPU where there is one.
        sharded: the engine places the weights itself, so that they are not moved to a device.
        sharded_state: the engine keeps the state of a group of parameters as pieces of one long row of numbers. An
            optimizer that looks at more than a number at a time cannot work so, and a tuner that freezes while it
            trains must freeze and thaw the parameters of a group together.
        attention: the attention implementation, as the runtime knows it; None is the model's own.
        positions: the scaling of rotary positions, if any.
        quantization: how weights are quantised while they are read; None reads them as they are.
        new_tokens: rows that are added to embeddings and head.
        parts: of a model that sees, those that train: ``projector``, ``language``, ``vision``; the model decides when
            there are none. Tuners leave all others as they are.
        seed: by which weights are drawn that the model's files have none of, such as those of a new head.
    """

    task: str = "causal"
    dtype: str = "auto"
    compute_dtype: str | None = None
    device: str = "auto"
    sharded: bool = False
    sharded_state: bool = False
    attention: str | None = None
    positions: ScaledPositions | None = None
    quantization: Quantization | None = None
    new_tokens: int = 0
    parts: tuple[str, ...] = ()
    seed: int = 42


class LanguageModel(Protocol):
    """A model that is open: its tokenizer at once, its weights after :meth:`load`.

    Attributes:
        adapter: the folder of the adapter that is on the model or waits for its weights; the core sets it.
    """

    adapter: Path | None

    @property
    def reference(self) -> str:
        """What it was opened by."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Turns text into token ids."""

    @property
    def media(self) -> MediaTokenizer | None:
        """What turns images into tokens, for a model that sees; else None."""

    @property
    def context_length(self) -> int | None:
        """The longest sequence it takes, in tokens; None where there is no such length."""

    @property
    def plan(self) -> LoadPlan:
        """How its weights will be, or were, read."""

    @property
    def folder(self) -> Path | None:
        """Where the model's own files are, in transformers' form and without any adapter.

        None when they are nowhere, as for a model that was converted while it was opened.
        """

    def accept(self, plan: LoadPlan) -> None:
        """Take the plan by which :meth:`load` will read the weights, in the place of any before.

        Raises:
            RequestError: the model, or its runtime, cannot do what the plan asks for; the message names it.
        """

    def load(self) -> None:
        """Load the weights, once, as the plan says.

        Raises:
            ModelError: the weights are missing or damaged.
        """

    def score(self, sequences: Iterable[EncodedSequence]) -> Iterator[Score]:
        """Yield the score of each sequence, in order."""

    def save(self, folder: Path, chat_template: str | None) -> None:
        """Write weights (safetensors), configuration and tokenizer into an existing folder."""


class ModelServices(Protocol):
    """What the core does for components that work with a second model."""

    def open_model(self, reference: str, beside: LanguageModel | None) -> LanguageModel:
        """Open, without its weights, what ``--model`` could name: a draft, a teacher, a reference, a judge.

        It goes where the model is that it works beside, in the same number format; where there is none, where it would
        go alone. The model opened last is kept, so asking for it again costs nothing.

        Raises:
            ModelError: the reference names no model.
            RequestError: it does not run where the other one does.
        """

    def encode_for(self, model: LanguageModel, examples: Sequence[Example]) -> list[EncodedExample]:
        """Encode examples as the model that was opened last wants them: with its tokenizer and its own template.

        Raises:
            ValueError: an example does not fit the template.
            RequestError: the model tells no template, and a conversation needs one.
        """


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
        ``model_types``: the only ones it opens of folders, by ``model_type`` of ``config.json``; it goes before loaders
            that name none, which open all others.
        ``runtime``: what the model runs in. Training needs ``torch``; a decoder works in one runtime.
        ``decoder``: the decoder that is used with it when none is chosen.
        ``adapter_suffix``: the ending of a file that it puts on itself as an adapter, when it does.
        ``hub_name``: the model's name on a hub, ``owner/name``, for one that a plugin brings; model cards tell it.
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
    model_types: tuple[str, ...] = ()
    runtime: str = TORCH
    decoder: str = "sampling"
    adapter_suffix: str | None = None
    template: str | None = None
    hub_name: str | None = None
