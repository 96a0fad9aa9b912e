"""``lmflow vlm assemble``."""

from __future__ import annotations

from pathlib import Path

import click

_FOLDER = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def vlm() -> None:
    """Make models that see."""


@vlm.command()
@click.option("--language", required=True, type=_FOLDER, help="Folder of a causal language model.")
@click.option("--vision", required=True, type=_FOLDER, help="Folder of a vision tower: CLIP, SigLIP or DINOv2.")
@click.option("--output", required=True, type=_FOLDER, help="Folder for the result; it must not hold anything.")
@click.option(
    "--kind", type=click.Choice(("llava", "idefics3")), default="llava", show_default=True, help="Model made."
)
@click.option(
    "--projector",
    type=click.Choice(("mlp", "pixel-shuffle")),
    help="What leads from images to text: mlp for llava, pixel-shuffle for idefics3; that of the kind when left out.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=42, show_default=True, help="Of the projector.")
def assemble(language: Path, vision: Path, output: Path, kind: str, projector: str | None, seed: int) -> None:
    """Make a model that sees of a language model and a vision tower, with a new projector between the two.

    What it answers to text is what the language model answers. Until the projector is trained, images tell it nothing.
    """
    from lmflow_multimodal.assembly.assembling import assemble as assembled

    made = assembled(language, vision, output, kind, projector, seed)
    click.echo(
        f"{output}: {made.model_type}, {made.parameters:,} parameters, {made.new_parameters:,} of them in the new "
        f"projector; an image of {made.image_size} pixels is {made.image_tokens} tokens"
    )
    if not made.chats:
        click.echo(
            "note: the language model has no chat template; train the result with --template NAME, which saves one",
            err=True,
        )
