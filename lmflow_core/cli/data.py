"""``lmflow data check|preview|stats|score``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lmflow_core.cli.command import SchemaCommand
from lmflow_core.cli.flags import Arguments
from lmflow_core.cli.results import print_json
from lmflow_core.config.request import Request
from lmflow_core.config.schema import SCORE
from lmflow_core.contracts.settings import DataSettings, ModelSettings
from lmflow_core.errors import DataError
from lmflow_core.options import build
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.report.plots import draw_lengths
from lmflow_core.workflows.check_data import check_data
from lmflow_core.workflows.inspect_data import data_stats
from lmflow_core.workflows.preview_data import Preview, preview_data

Command = Callable[..., Any]

_paths = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
_format = click.option("--dataset-format", help="Form of the rows; recognised when left out.")
_image_folder = click.option("--image-folder", help="Folders that images may be read from; several with commas.")
_fetch_images = click.option("--fetch-images", is_flag=True, help="Fetch images from http and https addresses.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


def _model_options(command: Command) -> Command:
    for decorate in (
        click.option("--model", required=True, help="Model whose tokenizer is used."),
        click.option("--template", help="Conversation template; the model decides when left out."),
        click.option("--max-length", help="Longest example in tokens."),
        click.option("--train-on", help="Turns that are trained on: assistant, last or all."),
        _image_folder,
        _fetch_images,
    ):
        command = decorate(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def data() -> None:
    """Look at data before it is trained on."""


@data.command()
@_paths
@_format
@_image_folder
@click.option("--model", help="Model that opens the images; without, they are looked at as files.")
@_fetch_images
@_json
@click.pass_obj
def check(
    catalogue: Catalogue, /, paths: tuple[Path, ...], as_json: bool, model: str | None, fetch_images: bool, **given: Any
) -> None:
    """Read every row, look at its images, and list the bad ones by file and number. Exit status 2 when any is."""
    opens = None if model is None else _model({"model": model, "fetch_images": fetch_images})
    report = check_data(_data(paths, given), catalogue, opens)
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        rows = [(file, chosen["format"], chosen["reason"]) for file, chosen in report.files.items()]
        console.show(console.table(("FILE", "FORMAT", "REASON"), rows))
        for bad in report.bad_rows:
            where = f"{bad.file}, row {bad.row}" if bad.row is not None else bad.file
            console.show(f"{where}: {bad.problem}")
        images = [f"{report.images} images"] if report.images else []
        console.show(", ".join([f"{report.examples} examples", *images, f"{len(report.bad_rows)} bad"]))
    if report.bad_rows:
        raise DataError(f"{len(report.bad_rows)} bad rows or files")


@data.command()
@_paths
@_format
@_model_options
@click.option("--rows", default=3, show_default=True, help="Rows to show.")
@_json
@click.pass_obj
def preview(catalogue: Catalogue, /, paths: tuple[Path, ...], rows: int, as_json: bool, **given: Any) -> None:
    """Show the first rows as they will be trained on; what carries a label is green."""
    previews = preview_data(_model(given), _data(paths, given), rows, catalogue)
    if as_json:
        print_json([_as_json(shown) for shown in previews])
        return
    for shown in previews:
        _print_preview(shown)


def _as_json(shown: Preview) -> dict[str, Any]:
    values = dataclasses.asdict(shown)
    for sequence in values["sequences"]:
        del sequence["pieces"]
    return values


def _print_preview(shown: Preview) -> None:
    numbers = [f"{name} {', '.join(f'{value:g}' for value in values)}" for name, values in shown.numbers.items()]
    console.show(f"{shown.file}, row {shown.row}: {'; '.join([f'{shown.tokens} tokens', *numbers])}", bold=True)
    for number, sequence in enumerate(shown.sequences, start=1):
        if len(shown.sequences) > 1:
            which = f"sequence {number} of {len(shown.sequences)}"
            console.show(f"{which}: {len(sequence.input_ids)} tokens", bold=True)
        for piece in sequence.pieces:
            console.show(piece.text, end="", color="green" if piece.trained else "", dim=not piece.trained)
        console.show()


@data.command()
@_paths
@_format
@_model_options
@click.option("--picture", type=click.Path(path_type=Path), help="Draw the lengths into this PNG file.")
@_json
@click.pass_obj
def stats(catalogue: Catalogue, /, paths: tuple[Path, ...], picture: Path | None, as_json: bool, **given: Any) -> None:
    """Count examples, tokens, what is trained on, over-long rows and duplicates; show how long the examples are."""
    result = data_stats(_model(given), _data(paths, given), catalogue)
    if picture is not None:
        draw_lengths(result["histogram"], result["max_length"], picture)
    if as_json:
        print_json(result)
        return
    lengths = ", ".join(f"{name} {value}" for name, value in result["length"].items())
    plain = [(name, value) for name, value in result.items() if name not in ("length", "histogram")]
    console.show(console.pairs([*plain, ("length", lengths)]))
    most = max(count for _, count in result["histogram"])
    bars = [(f"<= {bound}", count, "#" * round(40 * count / most)) for bound, count in result["histogram"]]
    console.show("\n" + console.table(("TOKENS", "EXAMPLES", ""), bars))


_OF_MODEL = ("model", "fetch_images")


def _model(given: dict[str, Any]) -> ModelSettings:
    return build(ModelSettings, {name: given[name] for name in _OF_MODEL})


def _data(paths: tuple[Path, ...], given: dict[str, Any]) -> DataSettings:
    values = {name: value for name, value in given.items() if name not in _OF_MODEL and value is not None}
    return build(DataSettings, {"dataset": list(paths), **values})


def _score(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    from lmflow_core.workflows.score_data import score_data

    report = score_data(request, catalogue)
    if "json" in arguments.switches:
        print_json(dataclasses.asdict(report))
        return
    counts = [("rows", report.rows), ("answers", report.answers), ("unscored", report.unscored)]
    means = [(name, "none" if mean is None else f"{mean:.4f}") for name, mean in report.means.items()]
    console.show(console.pairs([*counts, *means]))


data.add_command(SchemaCommand(SCORE, _score, summary="Score the answers of rows by rewards."), "score")
