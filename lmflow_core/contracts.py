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

from lmflow_core.conversations import Example, Message, Segment, ToolCall
from lmflow_core.options import OptionField
from lmflow_core.settings import DecodingSettings, ModelSettings, TrainingSettings

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
    def bos_token(self) -> str | None:
        """The token that a template means by the opening one, whether or not plain texts begin with it."""

    @property
    def eos(self) -> str | None:
        """The token that ends a sequence, or None."""

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Ids of the tokens that stand for themselves and are never made from ordinary text."""

    @property
    def swallows_space(self) -> Mapping[str, tuple[bool, bool]]:
        """Control tokens that take the white space beside them: whether that before and that behind."""

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

    @property
    def chat_template(self) -> str | None:
        """The model's own chat template, in Jinja; None when it has none."""

    def render_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
        jinja: str | None = None,
    ) -> str | None:
        """Return a conversation as the model's own chat template renders it in a sandbox, or another one given.

        None when there is no template or it refuses the conversation. Templates that ask for the date are given a
        fixed one, so that a text is the same on every day.
        """


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


@dataclass(frozen=True)
class Rope:
    """The rotary embeddings of a model.

    Attributes:
        parameters: transformers' ``rope_parameters``: ``rope_type``, ``rope_theta`` and what the type needs besides.
        dimension: features of a head that are rotated; there are half as many frequencies.
        length: positions the model was made for, its ``max_position_embeddings``.
    """

    parameters: Mapping[str, Any]
    dimension: int
    length: int


class PositionScaling(Protocol):
    """Target of a ``PositionScalingSpec``: a pure function of numbers, with no model in sight."""

    def __call__(self, rope: Rope, factor: float, options: Any) -> Rope:
        """Return the rotary embeddings of a model whose positions reach ``factor`` times as far.

        Args:
            rope: unscaled, of type ``default``.
            factor: 1 or more; 1 leaves every frequency as it is.
            options: the spec's options object, or None.
        """


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

    def gathered(self, value: str) -> list[str]:
        """Return what every process of the job passed, in the order of their ranks; all of them call this."""

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


class EarlyCheck(Protocol):
    """What a tuner or an objective offers besides, to refuse what it cannot work with before anything heavy."""

    def check(self, model: LanguageModel, tuner: Tuner) -> None:
        """Check an open model, whose weights are not loaded, and the tuner of the run.

        Raises:
            LmflowError: they do not suit; the message names what would.
        """


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

    @property
    def fingerprint(self) -> str:
        """A digest of everything that changes a rendering."""

    def bind(self, bos: str | None, eos: str | None) -> Template:
        """Return the template with a tokenizer's own tokens filled in."""

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool, tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[Segment, ...]:
        """Render a conversation. Trainable is what a trained message's author writes, and the stop behind it.

        ``tools`` are those that the assistant may call, in the form of ``Conversation.tools``.

        Raises:
            ValueError: the template has no place for one of the messages, or for tools.
        """

    def read_calls(self, text: str) -> tuple[str, tuple[ToolCall, ...]] | None:
        """Split an answer into its content and its calls of tools; None when the form of calls is not known."""

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
class TokenLogprob:
    """How likely the model itself found a token, before temperature and the like.

    Attributes:
        logprob: natural logarithm of the token's probability.
        alternatives: the likeliest ids with theirs, likeliest first; as many as were asked for.
    """

    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()


class RowSource(Protocol):
    """Target of a ``SourceSpec``: rows from a file or a hub, as a stream."""

    def rows(self, reference: str) -> Iterator[Mapping[str, Any]]:
        """Yield the rows of a file's path or a hub's name, as JSON values by field.

        Raises:
            DataError: the reference cannot be read.
        """

    def fingerprint(self, reference: str) -> str:
        """Return a digest that changes when a row of the reference does.

        Raises:
            DataError: the reference cannot be read.
        """


@dataclass(frozen=True)
class DecodeStep:
    """What a decoder gives at a time: one or more new token ids, in order.

    Attributes:
        ids: the new tokens.
        drafted: tokens a cheaper model or rule proposed for this step.
        accepted: how many of them were kept.
        passes: passes of the model itself that the step took.
        logprobs: one for each id, from a decoder whose option ``logprobs`` asks for them; else empty.
        dropped: tokens of the text that none from this step on sees any more, though those before it did.
    """

    ids: tuple[int, ...]
    drafted: int = 0
    accepted: int = 0
    passes: int = 1
    logprobs: tuple[TokenLogprob, ...] = ()
    dropped: int = 0


class Decoder(Protocol):
    """Target of a ``DecoderSpec``.

    A decoder must be cheap to make: a server makes one for each request that changes its options. What is heavy,
    such as a second model, is kept outside of it.
    """

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
class DrawnToken:
    """A token of an answer.

    Attributes:
        id: the token.
        text: what it adds to the answer; of several tokens that make up one character, the last adds it.
        offset: where that begins in the answer, in characters.
        logprob: its probability, when it was asked for.
    """

    id: int
    text: str
    offset: int
    logprob: TokenLogprob | None = None


class AnswerStream(Protocol):
    """An answer that is written while one iterates over its text, once, in the thread that iterates.

    Attributes:
        prompt_tokens: length of the prompt, known before anything is written.
        text: the text so far.
        drawn: the tokens so far, without the token that ends the answer. The last ones may belong to a stop text,
            which is not part of the answer: their offset is not below the length of the finished text.
        tokens: number of tokens drawn, the one that ends the answer included; known at the end.
        drafted: tokens that were drafted for the answer, none by most decoders; known at the end.
        accepted: how many of them were kept; known at the end.
        finish_reason: ``stop``, ``length`` or ``cancelled``; known at the end.
        dropped_tokens: how many tokens of prompt and answer the last one did not see, from a decoder that drops some.
    """

    prompt_tokens: int
    text: str
    drawn: list[DrawnToken]
    tokens: int
    drafted: int
    accepted: int
    finish_reason: str
    dropped_tokens: int

    def __iter__(self) -> Iterator[str]: ...

    def cancel(self) -> None:
        """End the answer before its next token. Another thread may call this."""


class TalkingModel(Protocol):
    """A loaded model with its template and decoder, ready to answer. It keeps no conversation.

    ``name`` is what the command line calls the model.
    """

    name: str
    model: LanguageModel
    settings: DecodingSettings

    @property
    def context_length(self) -> int | None:
        """How many tokens prompt and answer may have together.

        None where there is no limit: the model does not tell one, or the decoder goes on beyond it.
        """

    def opening(self) -> list[Message]:
        """Return the messages a conversation starts with: the system prompt of the command line, if any."""

    def answer(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> AnswerStream:
        """Return the answer to a conversation that ends with the user or the result of a tool.

        Raises:
            ValueError: the template has no place for one of the messages, or for tools.
        """

    def read_calls(self, text: str) -> tuple[str, tuple[ToolCall, ...]] | None:
        """Split an answer into its content and its calls of tools, as the template does."""

    def complete(self, prompt: str) -> AnswerStream:
        """Return what follows a plain text, without a template."""

    def changed(self, **values: object) -> TalkingModel:
        """Return the same model with other values of the decoder's options or of ``max_new_tokens, stop, seed``.

        Raises:
            OptionError: the decoder has no such option, or the value is out of range.
        """

    def parameters(self) -> Sequence[tuple[OptionField, object]]:
        """Return what :meth:`changed` can change, with its values."""


class ModelOpener(Protocol):
    """Opens models that answer, by the names that ``--model`` and ``--decoder`` take."""

    def __call__(self, **changes: object) -> TalkingModel:
        """Load what the command line names, or with other values for some of its options: ``model``, ``decoder``, ….

        The model loaded last is not loaded anew where only other options change.

        Raises:
            LmflowError: the model, template or decoder cannot be used.
        """

    def names(self, kind: str) -> list[str]:
        """Return the names there are of a kind: ``model`` or ``decoder``."""


class TalkingCommand(Protocol):
    """Target of a ``CommandSpec`` that ``talks``."""

    def __call__(self, open_model: ModelOpener, options: Any) -> None:
        """Run the command. ``open_model`` loads what the command line names; ``options`` is the spec's own."""


@dataclass(frozen=True)
class Grid:
    """Values between 0 and 1 on a grid, to be shown as a picture. ``values`` are row by row, as ``rows`` names them."""

    title: str
    column_label: str
    columns: tuple[str, ...]
    row_label: str
    rows: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class BenchmarkReport:
    """What a benchmark found: figures by name and, where it draws one, a grid."""

    metrics: Mapping[str, float]
    grid: Grid | None = None


class Benchmark(Protocol):
    """Target of a ``BenchmarkSpec``."""

    def run(self, model: LanguageModel) -> BenchmarkReport:
        """Measure a loaded model.

        Raises:
            RequestError: the model cannot be measured so.
        """


@dataclass(frozen=True)
class ExportReport:
    """What an exporter wrote.

    Attributes:
        files: sizes in bytes by file name relative to the destination.
        measured: rows of a table, all with the same keys, when the exporter measured what it wrote.
    """

    files: Mapping[str, int]
    measured: Sequence[Mapping[str, object]] = ()


class Exporter(Protocol):
    """Target of an ``ExporterSpec``."""

    def export(self, model: LanguageModel, folder: Path, chat_template: str | None) -> ExportReport:
        """Write a model into an empty folder, which the caller puts in place when all went well.

        Whether the model is loaded is said by ``ExporterSpec.takes``. ``chat_template`` is the Jinja text of the
        model's template, when LMFlow knows it.
        """


CONTRACTS: dict[str, type] = {
    "model": ModelLoader,
    "tuner": Tuner,
    "objective": Objective,
    "template": Template,
    "dataset": DatasetFormat,
    "source": RowSource,
    "decoder": Decoder,
    "exporter": Exporter,
    "attention": Attention,
    "position_scaling": PositionScaling,
    "benchmark": Benchmark,
    "engine": Engine,
}
