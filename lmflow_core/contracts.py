"""Contracts: what the target of each kind of spec must do. Hooks declare, these act.

The protocols are written without torch. Token ids are plain integers; ``labels`` are token ids, or
:data:`IGNORE` where nothing is learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lmflow_core.conversations import Example, Message, Segment
from lmflow_core.settings import ModelSettings, TrainingSettings

IGNORE = -100


@dataclass(frozen=True)
class Encoded:
    """One example as the model sees it; both sequences have the same length.

    ``labels[i]`` is ``input_ids[i]`` where that token is learned, else :data:`IGNORE` (no shift is applied).
    """

    input_ids: Sequence[int]
    labels: Sequence[int]


class EncodedDataset(Protocol):
    """Examples that can be fetched by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> Encoded: ...


class Tokenizer(Protocol):
    """Text to token ids, with the control tokens apart from the text."""

    @property
    def bos(self) -> str | None:
        """The token that opens a sequence, when the model wants one; else None."""

    @property
    def eos(self) -> str | None:
        """The token that ends a sequence, or None."""

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Ids of the tokens that stand for themselves and are never made from ordinary text."""

    @property
    def spaces_after_control(self) -> bool:
        """Whether a tokenizer that makes up a space before a text does so after a control token too."""

    @property
    def fingerprint(self) -> str:
        """A digest of everything that changes the ids of a text."""

    def encode(self, texts: Sequence[str], continues: Sequence[bool]) -> list[list[int]]:
        """Encode texts as plain text: what looks like a control token becomes its characters.

        Where ``continues`` is set the text follows another without a gap, so no leading space is assumed.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, control tokens included."""

    def render_chat(self, messages: Sequence[Message], add_generation_prompt: bool) -> str | None:
        """Return the model's own rendering of a conversation, or None when it has no (fitting) template."""


@dataclass(frozen=True)
class Score:
    """Negative log-likelihood of one example: summed over its labelled tokens, in nats, and their number."""

    nll: float
    tokens: int


class LanguageModel(Protocol):
    """A model that is open: its tokenizer at once, its weights after :meth:`load`."""

    reference: str
    tokenizer: Tokenizer
    context_length: int | None

    def load(self) -> None:
        """Load the weights, once.

        Raises:
            ModelError: the weights are missing or damaged.
        """

    def score(self, examples: Iterable[Encoded]) -> Iterator[Score]:
        """Yield the score of each example, in order."""

    def save(self, folder: Path, chat_template: str | None) -> None:
        """Write weights (safetensors), configuration and tokenizer into an existing folder."""


class ModelLoader(Protocol):
    """Target of a ``ModelSpec``."""

    def open(self, reference: str, settings: ModelSettings) -> LanguageModel:
        """Open a model without loading its weights.

        Raises:
            ModelError: the reference names no model that this loader can open.
        """


@dataclass(frozen=True)
class World:
    """The processes of a job and this one's place among them."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0


class Engine(Protocol):
    """Target of an ``EngineSpec``."""

    def start(self) -> AbstractContextManager[World]:
        """Join the job's processes for the time of the context.

        Raises:
            RequestError: the environment is not the one this engine needs.
        """

    def trainer_arguments(self) -> Mapping[str, Any]:
        """Return what the engine adds to the trainer's arguments."""


class Attention(Protocol):
    """Target of an ``AttentionSpec``."""

    def implementation(self, device: str) -> str:
        """Return the name under which the runtime knows this attention, ready for use on a device.

        Raises:
            RequestError: the device or an installed library does not allow it.
        """


class Tuner(Protocol):
    """Target of a ``TunerSpec``: which parameters train, and how they are kept."""

    def prepare(self, model: LanguageModel, seed: int) -> None:
        """Mark what trains in a loaded model, wrapping it where needed; fresh weights are drawn from the seed."""

    def trainer_extensions(self, model: LanguageModel, settings: TrainingSettings) -> Mapping[str, Any]:
        """Return what the tuner adds to the trainer: ``optimizer``, ``callbacks``, ``arguments``, each optional.

        A callback with a method ``save_into(folder)`` puts state of its own into each checkpoint.
        """

    def save(self, model: LanguageModel, folder: Path, chat_template: str | None) -> None:
        """Write the result of training into an existing folder."""

    def attach(self, model: LanguageModel, folder: Path) -> None:
        """Put an adapter of this tuner on a loaded model; tuners without adapters raise ``ModelError``."""

    def base_reference(self, folder: Path) -> str | None:
        """Return the reference of the model an adapter was made for, when its folder tells."""


@dataclass(frozen=True)
class TrainingJob:
    """Everything an objective needs to train. ``checkpoints`` is a folder the trainer may write into."""

    model: LanguageModel
    tuner: Tuner
    engine: Engine
    world: World
    data: EncodedDataset
    held_out: EncodedDataset | None
    settings: TrainingSettings
    attention: str
    checkpoints: Path
    resume: bool = False


@dataclass(frozen=True)
class LossPoint:
    """The mean training loss, in nats per labelled token, since the last point."""

    step: int
    loss: float


@dataclass(frozen=True)
class TrainingReport:
    """What a training run did. ``tokens`` counts real tokens, over all processes."""

    steps: int
    tokens: int
    seconds: float
    peak_memory_bytes: int
    losses: tuple[LossPoint, ...]
    held_out_losses: tuple[LossPoint, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        """Real tokens trained per second of training."""
        return self.tokens / self.seconds if self.seconds else 0.0


class Objective(Protocol):
    """Target of an ``ObjectiveSpec``: drives the trainer."""

    def train(self, job: TrainingJob) -> TrainingReport:
        """Train the job's model in place.

        Raises:
            LmflowError: training failed; the message names what can be done.
        """


class Template(Protocol):
    """Target of a ``TemplateSpec``: messages to segments, and to the same text in Jinja."""

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end an assistant's turn."""

    def bind(self, bos: str | None, eos: str | None) -> Template:
        """Return the template with a tokenizer's own tokens filled in."""

    def render(self, messages: Sequence[Message], add_generation_prompt: bool) -> tuple[Segment, ...]:
        """Render a conversation; only the assistant's content and its stop are trainable.

        Raises:
            ValueError: the template has no place for one of the messages.
        """

    def to_jinja(self) -> str:
        """Return a Jinja chat template that renders the same text."""


class DatasetFormat(Protocol):
    """Target of a ``DatasetSpec``: one row to one example."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has this format's fields."""

    def read(self, row: Mapping[str, Any]) -> Example:
        """Turn a row into an example.

        Raises:
            ValueError: a field is missing, empty or of the wrong type; the message names it.
        """


@dataclass(frozen=True)
class DecodeStep:
    """What a decoder gives at a time: one or more new token ids, in order.

    Attributes:
        ids: the new tokens.
        drafted: tokens a cheaper model or rule proposed for this step.
        accepted: how many of them were kept.
        passes: passes of the model itself that the step took.
    """

    ids: tuple[int, ...]
    drafted: int = 0
    accepted: int = 0
    passes: int = 1


class Decoder(Protocol):
    """Target of a ``DecoderSpec``."""

    def decode(
        self,
        model: LanguageModel,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        stop_ids: frozenset[int],
        seed: int,
    ) -> Iterator[DecodeStep]:
        """Yield new tokens after the prompt until a stop id (which is yielded last) or the limit."""


class BatchDecoder(Protocol):
    """What a decoder that draws for several prompts at once offers besides :class:`Decoder`."""

    def decode_many(
        self,
        model: LanguageModel,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop_ids: frozenset[int],
        seeds: Sequence[int],
    ) -> Iterator[tuple[int, DecodeStep]]:
        """Yield steps with the index of their prompt; each prompt's tokens are those of ``decode`` under its seed."""


@dataclass(frozen=True)
class ExportReport:
    """What an exporter wrote, by file name relative to the destination, with sizes in bytes."""

    files: Mapping[str, int]


class Exporter(Protocol):
    """Target of an ``ExporterSpec``."""

    def export(self, model: LanguageModel, folder: Path, chat_template: str | None) -> ExportReport:
        """Write a loaded model into an empty folder, which the caller puts in place when all went well."""


CONTRACTS: dict[str, type] = {
    "model": ModelLoader,
    "tuner": Tuner,
    "objective": Objective,
    "template": Template,
    "dataset": DatasetFormat,
    "decoder": Decoder,
    "exporter": Exporter,
    "attention": Attention,
    "engine": Engine,
}
