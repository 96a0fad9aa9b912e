"""``lmflow evaluate``."""

from __future__ import annotations

import dataclasses

import click

from lmflow_core import console
from lmflow_core.cli.flags import Arguments
from lmflow_core.cli.shaped import ShapedCommand, print_json
from lmflow_core.job import EVALUATE, Request
from lmflow_core.output import write_json
from lmflow_core.registry import Catalogue
from lmflow_core.settings import EvaluationSettings


def _run(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    from lmflow_core.workflows.evaluate import evaluate as work

    result = dataclasses.asdict(work(request, catalogue))
    file = request.get(EvaluationSettings).output_file
    if file is not None:
        write_json(file, result)
    if "json" in arguments.switches:
        print_json(result)
    else:
        click.echo(console.pairs(result.items()))


evaluate = ShapedCommand(EVALUATE, _run, summary="Measure the negative log-likelihood of data under a model.")
