"""``lmflow templates``: the conversation templates there are, and what one makes of a conversation."""

from __future__ import annotations

import click

from lmflow_core.cli.results import print_json
from lmflow_core.contracts.examples import Message, ToolCall
from lmflow_core.contracts.template import Template, TemplateSpec
from lmflow_core.errors import RequestError
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.templates.files import is_template_file, load_template_file

_ASK, _ANSWER, _ASK_MORE = Message("user", "What is 2 + 3?"), Message("assistant", "5"), Message("user", "And 2 * 3?")
_TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}},
    },
}
_CALL = Message("assistant", "", tool_calls=(ToolCall("add", {"a": 2, "b": 3}),))
_REASONED = Message("assistant", "5", reasoning="2 and 3 make 5.")


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.pass_context
def templates(ctx: click.Context, as_json: bool) -> None:
    """List the conversation templates with the models they were made for, or show one."""
    if ctx.invoked_subcommand is not None:
        return
    listed = list(ctx.obj.of(TemplateSpec))
    if as_json:
        print_json([{**_described(provided.spec), "plugin": provided.plugin.name} for provided in listed])
        return
    rows = [(p.spec.name, p.plugin.name, p.spec.models or "-", p.spec.summary) for p in listed]
    console.show(console.table(("TEMPLATE", "PLUGIN", "MODELS", "SUMMARY"), sorted(rows)))


def _described(spec: object) -> dict[str, object]:
    return {name: getattr(spec, name) for name in ("name", "aliases", "models", "summary")}


@templates.command()
@click.argument("name")
@click.option("--jinja", is_flag=True, help="Print the Jinja text that is saved with a model.")
@click.option("--tools", is_flag=True, help="Render a conversation that calls a tool.")
@click.option("--reasoning", is_flag=True, help="Render an answer with the reasoning before it.")
@click.option("--bos", default="<s>", show_default=True, help="Token that opens a sequence.")
@click.option("--eos", default="</s>", show_default=True, help="Token that ends a sequence.")
@click.pass_obj
def show(catalogue: Catalogue, name: str, jinja: bool, tools: bool, reasoning: bool, bos: str, eos: str) -> None:
    """Render a sample conversation; what is trained on is green. NAME is a template's name or a YAML file."""
    template: Template = (
        load_template_file(name, None) if is_template_file(name) else catalogue.of(TemplateSpec).load(name)
    )
    template = template.bind(bos, eos)
    if jinja:
        console.show(template.to_jinja())
        return
    messages: tuple[Message, ...] = (_ASK, _ANSWER, _ASK_MORE)
    if tools:
        messages = (_ASK, _CALL, Message("tool", "5"), _ANSWER)
    elif reasoning:
        messages = (_ASK, _REASONED)
    try:
        segments = template.render(messages, messages[-1].role == "user", (_TOOL,) if tools else ())
    except ValueError as error:
        raise RequestError(f"{name}: {error}") from error
    for segment in segments:
        console.show(segment.text, end="", color="green" if segment.trainable else "")
    console.show()
