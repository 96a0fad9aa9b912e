"""Exporters: forms a model can be written in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from lmflow_core.contracts.model import PREDICTING, LanguageModel
from lmflow_core.contracts.spec import Selector, Spec
from lmflow_core.errors import SpecError


@dataclass(frozen=True)
class ExportReport:
    """What an exporter wrote.

    Attributes:
        files: sizes in bytes by file name relative to the destination.
        measured: rows of a table, all with the same keys, when the exporter measured what it wrote.
        notes: what a user must know of it, each a sentence.
    """

    files: Mapping[str, int]
    measured: Sequence[Mapping[str, object]] = ()
    notes: Sequence[str] = ()


class Exporter(Protocol):
    """Target of an ``ExporterSpec``."""

    def export(self, model: LanguageModel, folder: Path, chat_template: str | None) -> ExportReport:
        """Write a model into an empty folder, which the caller puts in place when all went well.

        Whether the model is loaded is said by ``ExporterSpec.takes``. ``chat_template`` is the Jinja text of the
        model's template, when LMFlow knows it.
        """


@dataclass(frozen=True, kw_only=True)
class ExporterSpec(Spec):
    """A form a model can be written in; ``target(options)`` satisfies ``Exporter``.

    Attributes:
        ``takes``: what the exporter is given. ``weights``: a loaded model with its adapter on. ``files``: an open model
            that is not loaded, whose files are in ``model.folder``; loaded, with its adapter on, when it has an adapter
            or no such folder. ``adapter``: an open model that is not loaded, with the adapter's folder in
            ``model.adapter``; a model without one is refused.
        ``library``: the library that loads what is written, where that is a whole model in a folder: a model card that
            names it is put beside it.
        ``suffix``: the ending of the file, for an exporter that writes one: ``--output`` may then name the file itself.
        ``companions``: beginnings of the names of further files, which it writes of a model that sees. Where
            ``--output`` names a file, ``mmproj-`` puts one as ``mmproj-NAME`` beside it.
        ``tasks``: those of a load plan whose models it writes.
        ``reopens``: what it writes can be given to ``--model`` and gives the same likelihoods, but for rounding.

    Example::

        @hookimpl
        def lmflow_register_exporters():
            yield ExporterSpec(
                name="onnx", target="lmflow_onnx.exporter:OnnxExporter", summary="An ONNX graph.", suffix=".onnx"
            )
    """

    kind: ClassVar[str] = "exporter"
    contract: ClassVar[type | None] = Exporter
    selector: ClassVar[Selector | None] = Selector("format", "Form to write the model in.", {"export": "huggingface"})
    takes: str = "weights"
    suffix: str | None = None
    companions: tuple[str, ...] = ()
    library: str | None = None
    reopens: bool = False
    tasks: tuple[str, ...] = PREDICTING

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.takes not in ("weights", "files", "adapter"):
            raise SpecError(f"takes of {self.name!r} must be weights, files or adapter, not {self.takes!r}")
