"""``lmflow vocab train|extend|measure``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

_PATH = click.Path(path_type=Path)
_files = click.option(
    "--files", "files", multiple=True, required=True, type=_PATH, help="Text in UTF-8, or JSON lines; may be repeated."
)
_output = click.option("--output", required=True, type=_PATH, help="Folder for the result.")
_overwrite = click.option("--overwrite", is_flag=True, help="Replace what is in the folder.")
_field = click.option("--field", default="text", show_default=True, help="Field of JSON lines that holds the text.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


class _Spread(click.Command):
    """Takes several values behind one ``--files``, as other commands of lmflow do with files."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the flag before each of its values."""
        return super().parse_args(ctx, spread(args, "--files"))


def spread(args: Sequence[str], flag: str) -> list[str]:
    """Return arguments in which a flag stands before each of the values that followed it."""
    result: list[str] = []
    behind = False
    for argument in args:
        if argument.startswith("-") and len(argument) > 1:
            behind = argument == flag
            result.append(argument)
        elif behind and result[-1] != flag:
            result += [flag, argument]
        else:
            result.append(argument)
    return result


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def vocab() -> None:
    """Train a vocabulary, extend a model's by a language, or measure one."""


@vocab.command(cls=_Spread)
@_files
@_field
@click.option("--size", required=True, type=click.IntRange(1), help="Tokens in the vocabulary.")
@click.option(
    "--kind", type=click.Choice(("bpe", "sentencepiece")), default="bpe", show_default=True, help="What is trained."
)
@click.option(
    "--algorithm",
    type=click.Choice(("unigram", "bpe")),
    help="Of SentencePiece; unigram when left out.",
)
@_output
@_overwrite
@_json
def train(
    files: tuple[Path, ...], field: str, size: int, kind: str, algorithm: str | None, output: Path, overwrite: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Train a vocabulary of its own and write it as a tokenizer that transformers loads.

    bpe is byte-level BPE; sentencepiece writes a tokenizer.model as well. Every text can be written in either, byte by
    byte where no token fits.
    """
    from lmflow_core.api import OptionError, check_output

    if algorithm is not None and kind != "sentencepiece":
        raise OptionError("--algorithm belongs to --kind sentencepiece")
    check_output(output, overwrite=overwrite)
    from lmflow_vocabulary.training import train as trained

    made = trained(files, field, size, kind, algorithm or "unigram", output)
    if as_json:
        _print_json({"output": str(output), **dataclasses.asdict(made)})
        return
    click.echo(f"{output}: a {kind} tokenizer of {made.tokens:,} tokens")
    if made.tokens < made.asked:
        click.echo(f"note: the text has no more; --size {made.asked:,} were asked for", err=True)


@vocab.command(cls=_Spread)
@click.option("--model", required=True, help="Model that is extended.")
@_files
@_field
@click.option("--size", required=True, type=click.IntRange(1), help="New tokens.")
@click.option(
    "--scripts", help="Scripts to learn, such as CJK or DEVANAGARI, several with commas; found when left out."
)
@click.option(
    "--init",
    type=click.Choice(("mean", "global-mean")),
    default="mean",
    show_default=True,
    help="New rows: the mean of the rows of the old tokens they are made of, or of all.",
)
@click.option(
    "--pad-to", type=click.IntRange(1), default=64, show_default=True, help="Rows are a multiple of it where they grow."
)
@_output
@_overwrite
@_json
@click.pass_obj
def extend(
    catalogue: object,
    /,
    model: str,
    files: tuple[Path, ...],
    output: Path,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Give a model the tokens of a language it does not know.

    A text without any character of the scripts that are learned has the same ids as before. The result is a folder for
    plain transformers; train its new rows first, with --tuner embeddings.
    """
    from lmflow_core.api import check_output, model_services

    check_output(output, overwrite=overwrite)
    from lmflow_vocabulary.extending import Request
    from lmflow_vocabulary.extending import extend as extended

    scripts = [name.strip() for name in (given.pop("scripts") or "").split(",") if name.strip()]
    opened = model_services(catalogue).open_model(model, None)
    made = extended(opened, Request(files=files, scripts=scripts, **given), output)
    if as_json:
        _print_json({"output": str(output), **dataclasses.asdict(made)})
        return
    click.echo(
        f"{output}: {made.new_tokens:,} new tokens of {', '.join(made.scripts)} behind {made.tokens_before:,}; "
        f"{made.rows:,} rows where there were {made.rows_before:,}"
    )
    if made.new_tokens < given["size"]:
        click.echo(f"note: the text has no more; --size {given['size']:,} were asked for", err=True)


@vocab.command(cls=_Spread)
@click.option("--model", required=True, help="Model whose tokenizer is measured.")
@_files
@click.option(
    "--field", default="text", show_default=True, help="Fields of JSON lines that hold text; several with commas."
)
@_json
@click.pass_obj
def measure(catalogue: object, /, model: str, files: tuple[Path, ...], field: str, as_json: bool) -> None:
    """Count the tokens of text, and the texts that come back from their tokens as they were."""
    from lmflow_core.api import model_services
    from lmflow_vocabulary.measuring import measure_files

    tokenizer: Any = model_services(catalogue).open_model(model, None).tokenizer
    found = measure_files(tokenizer.inner, files, [name.strip() for name in field.split(",")])
    if as_json:
        ratios = ("per_character", "per_word", "per_byte")
        _print_json([dataclasses.asdict(m) | {f"tokens_{r}": getattr(m, r) for r in ratios} for m in found])
        return
    header = ("TEXT", "TEXTS", "TOKENS", "PER CHARACTER", "PER WORD", "PER BYTE", "UNCHANGED")
    rows = [
        (m.name, m.texts, m.tokens, f"{m.per_character:.3f}", f"{m.per_word:.3f}", f"{m.per_byte:.3f}", m.unchanged)
        for m in found
    ]
    click.echo(_table(header, rows))


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
