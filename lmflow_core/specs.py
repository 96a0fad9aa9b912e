"""Specs: the frozen declarations with which a plugin offers something, one class per extension point.

A spec costs nothing to read. ``target`` is a ``"module:attribute"`` string that is imported only when somebody
chooses the name, so a plugin's ``plugin.py`` stays light.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import ClassVar

from lmflow_core.errors import SpecError
from lmflow_core.options import fields_of

_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]*$")
_TARGET = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
_DISTRIBUTION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
_LONGEST_SUMMARY = 60
TORCH = "torch"
CORE_COMMANDS = frozenset(
    ("finetune", "generate", "chat", "evaluate", "export", "merge", "data", "plugins", "templates", "doctor")
)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What every spec has.

    Attributes:
        name: lower-case name by which a user chooses it, unique among the healthy plugins.
        target: ``"module:attribute"``, imported when the name is chosen.
        summary: one line of at most 60 characters for listings.
        aliases: other names that mean the same.
        requires: names of distributions that ``target`` needs beyond the plugin's own dependencies.
        options: a frozen dataclass whose fields become flags and run-file keys while the name is chosen.

    Raises:
        SpecError: a field does not have the form above.
    """

    kind: ClassVar[str] = ""

    name: str
    target: str
    summary: str
    aliases: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    options: type | None = None

    def __post_init__(self) -> None:
        self._check_tuples()
        for name in (self.name, *self.aliases):
            if not _NAME.fullmatch(name):
                raise SpecError(f"{self.kind} name {name!r} must match {_NAME.pattern}")
        if not _TARGET.fullmatch(self.target):
            raise SpecError(f"target {self.target!r} of {self.name!r} must look like 'module:attribute'")
        if not self.summary or len(self.summary) > _LONGEST_SUMMARY or "\n" in self.summary:
            raise SpecError(f"summary of {self.name!r} must be one line of 1 to {_LONGEST_SUMMARY} characters")
        for distribution in self.requires:
            if not _DISTRIBUTION.fullmatch(distribution):
                raise SpecError(f"requires of {self.name!r} must hold names of distributions, not {distribution!r}")
        if self.options is not None:
            self._check_options(self.options)

    def _check_tuples(self) -> None:
        """Refuse a string where several are meant: it would be taken letter by letter."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if str(field.type).startswith("tuple") and not isinstance(value, tuple):
                raise SpecError(f"{field.name} of {self.name!r} must be a tuple, not {value!r}")

    def _check_options(self, options: object) -> None:
        if not isinstance(options, type) or not dataclasses.is_dataclass(options):
            raise SpecError(f"options of {self.name!r} must be a dataclass, not {options!r}")
        try:
            fields_of(options)
        except TypeError as error:
            raise SpecError(f"options of {self.name!r}: {error}") from error


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
    """

    kind: ClassVar[str] = "model"
    references: tuple[str, ...] = ()
    native: tuple[str, ...] = ()
    runtime: str = TORCH
    decoder: str = "sampling"
    adapter_suffix: str | None = None
    template: str | None = None


@dataclass(frozen=True, kw_only=True)
class TunerSpec(Spec):
    """Which parameters train and how they are kept; ``target(options)`` satisfies ``Tuner``.

    ``adapter_file`` is the file that marks a folder as an adapter of this tuner, when it makes adapters.
    ``learning_rate`` is the peak used when the user gives none.
    """

    kind: ClassVar[str] = "tuner"
    learning_rate: float = 2e-5
    adapter_file: str | None = None


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec(Spec):
    """A loss; ``target(options)`` satisfies ``Objective``.

    ``examples`` are the kinds of example it learns from: ``text``, ``prompted``, ``conversation``.
    """

    kind: ClassVar[str] = "objective"
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TemplateSpec(Spec):
    """A conversation template; ``target`` is an object that satisfies ``Template``.

    ``models`` names the models it was made for, for listings.
    """

    kind: ClassVar[str] = "template"
    models: str = ""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A form that rows come in; ``target`` is called with no argument and satisfies ``DatasetFormat``.

    Pure Python. ``fields`` describes the fields of a row in a few words, for error messages.
    """

    kind: ClassVar[str] = "dataset"
    fields: str


@dataclass(frozen=True, kw_only=True)
class SourceSpec(Spec):
    """A place rows are read from; ``target`` is called with no argument and satisfies ``RowSource``.

    ``suffixes`` are those of the files it reads, such as ``.parquet``; ``hub`` tells that it reads ``owner/name``.
    """

    kind: ClassVar[str] = "source"
    suffixes: tuple[str, ...] = ()
    hub: bool = False


@dataclass(frozen=True, kw_only=True)
class DecoderSpec(Spec):
    """A way to draw tokens from a model; ``target(options)`` satisfies ``Decoder``.

    Attributes:
        ``runtime``: that of the models it can drive.
        ``unbounded``: it goes on beyond a model's context, so that no prompt is too long for it.
    """

    kind: ClassVar[str] = "decoder"
    runtime: str = TORCH
    unbounded: bool = False


@dataclass(frozen=True, kw_only=True)
class ExporterSpec(Spec):
    """A form a model can be written in; ``target(options)`` satisfies ``Exporter``.

    Attributes:
        ``takes``: what the exporter is given. ``weights``: a loaded model with its adapter on. ``files``: an open model
            that is not loaded, whose files are in ``model.folder``; loaded, with its adapter on, when it has an adapter
            or no such folder. ``adapter``: an open model that is not loaded, with the adapter's folder in
            ``model.adapter``; a model without one is refused.
        ``suffix``: the ending of the file, for an exporter that writes one: ``--output`` may then name the file itself.
    """

    kind: ClassVar[str] = "exporter"
    takes: str = "weights"
    suffix: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.takes not in ("weights", "files", "adapter"):
            raise SpecError(f"takes of {self.name!r} must be weights, files or adapter, not {self.takes!r}")


@dataclass(frozen=True, kw_only=True)
class AttentionSpec(Spec):
    """An attention implementation; ``target(options)`` satisfies ``Attention``."""

    kind: ClassVar[str] = "attention"


@dataclass(frozen=True, kw_only=True)
class PositionScalingSpec(Spec):
    """A way to extend rotary positions; ``target(rope, factor, options)`` satisfies ``PositionScaling``."""

    kind: ClassVar[str] = "position_scaling"


@dataclass(frozen=True, kw_only=True)
class BenchmarkSpec(Spec):
    """A measurement of a model; ``target(options)`` satisfies ``Benchmark``."""

    kind: ClassVar[str] = "benchmark"


@dataclass(frozen=True, kw_only=True)
class EngineSpec(Spec):
    """How a training job is spread over processes; ``target(options)`` satisfies ``Engine``.

    ``environment`` names the variables whose presence chooses this engine when none is asked for.
    """

    kind: ClassVar[str] = "engine"
    environment: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CommandSpec(Spec):
    """A command of ``lmflow``; ``target`` is a ``click.Command``. The core's own names are reserved.

    With ``talks`` set the command works with a model that answers: it takes the flags of ``lmflow chat`` beside those
    of ``options``, and ``target`` is a function that satisfies ``TalkingCommand``.

    With ``finetunes`` set the command is ``lmflow finetune`` with defaults of its own: ``target`` is a dictionary of
    values by option name, which a run file and flags override.
    """

    kind: ClassVar[str] = "command"
    talks: bool = False
    finetunes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.talks and self.finetunes:
            raise SpecError(f"the command {self.name!r} cannot be one that talks and one that finetunes")
        if self.options is not None and not self.talks:
            raise SpecError(f"the command {self.name!r} has options but does not talk; a click command has its own")
        for name in CORE_COMMANDS.intersection((self.name, *self.aliases)):
            raise SpecError(f"the command name {name!r} is reserved for the core")


SPEC_CLASSES: tuple[type[Spec], ...] = (
    ModelSpec,
    TunerSpec,
    ObjectiveSpec,
    TemplateSpec,
    DatasetSpec,
    SourceSpec,
    DecoderSpec,
    ExporterSpec,
    AttentionSpec,
    PositionScalingSpec,
    BenchmarkSpec,
    EngineSpec,
    CommandSpec,
)
KINDS: dict[str, type[Spec]] = {spec_class.kind: spec_class for spec_class in SPEC_CLASSES}
