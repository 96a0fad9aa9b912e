"""``lmflow templates``: the conversation templates there are, and what one makes of a conversation."""

from __future__ import annotations

import click

from lmflow_core import console
from lmflow_core.contracts import Template
from lmflow_core.conversations import Message
from lmflow_core.registry import Catalogue

_SAMPLE = (Message("user", "What is 2 + 3?"), Message("assistant", "5"), Message("user", "And 2 * 3?"))


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def templates(ctx: click.Context) -> None:
    """List the conversation templates, or show one."""
    if ctx.invoked_subcommand is None:
        rows = [(p.spec.name, p.plugin.name, p.spec.summary) for p in ctx.obj.templates]
        click.echo(console.table(("TEMPLATE", "PLUGIN", "SUMMARY"), sorted(rows)))


@templates.command()
@click.argument("name")
@click.option("--jinja", is_flag=True, help="Print the Jinja text that is saved with a model.")
@click.option("--bos", default="<s>", show_default=True, help="Token that opens a sequence.")
@click.option("--eos", default="</s>", show_default=True, help="Token that ends a sequence.")
@click.pass_obj
def show(catalogue: Catalogue, name: str, jinja: bool, bos: str, eos: str) -> None:
    """Render a sample conversation; what is trained on is green."""
    template: Template = catalogue.templates.load(name).bind(bos, eos)
    if jinja:
        click.echo(template.to_jinja())
        return
    for segment in template.render(_SAMPLE, add_generation_prompt=True):
        click.secho(segment.text, nl=False, fg="green" if segment.trainable else None)
    click.echo()
