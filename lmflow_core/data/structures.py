"""Words around prompts: what ``--prompt-structure`` makes of rows of a plain prompt and its answer."""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.contracts.examples import Prompted, Text
from lmflow_core.contracts.settings import PROMPT_PLACE, DataSettings, EvaluationDataSettings
from lmflow_core.data.examples import Located
from lmflow_core.errors import DataError


def structure_of(data: DataSettings) -> str | None:
    """Return the words around prompts, where there are any."""
    return data.prompt_structure if isinstance(data, EvaluationDataSettings) else None


def structured(located: Located, structure: str) -> Located:
    """Return an example with the words around its prompt; a text has none and stays.

    Raises:
        DataError: it is of another kind, whose template has the words.
    """
    example = located.example
    if isinstance(example, Text):
        return located
    if not isinstance(example, Prompted):
        raise DataError(
            f"--prompt-structure is for rows of a plain prompt and its answer; the words around a {example.kind} are "
            "those of --template",
            file=located.file,
            row=located.row,
        )
    before, behind = PROMPT_PLACE.split(structure)
    return replace(located, example=replace(example, prompt=f"{before}{example.prompt}{behind}"))
