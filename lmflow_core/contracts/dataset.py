"""Forms of data rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from lmflow_core.contracts.examples import Example
from lmflow_core.contracts.spec import Spec
from lmflow_core.errors import SpecError


class DatasetFormat(Protocol):
    """Target of a ``DatasetSpec``: one row to one example."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has this format's fields."""

    def read(self, row: Mapping[str, Any]) -> Example:
        """Turn a row into an example.

        Raises:
            ValueError: a field is missing, empty or of the wrong type; the message names it.
        """


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A form that rows come in; ``target`` is called with no argument and satisfies ``DatasetFormat``.

    Pure Python. ``fields`` describes the fields of a row in a few words, for error messages; ``example`` is one row, as
    JSON, from which the form can be checked.

    Example::

        @hookimpl
        def lmflow_register_datasets():
            yield DatasetSpec(
                name="minutes",
                target="lmflow_minutes.rows:Minutes",
                summary="Minutes of meetings.",
                fields="speaker, said",
                example='{"speaker": "Ada", "said": "Let us begin."}',
            )
    """

    kind: ClassVar[str] = "dataset"
    contract: ClassVar[type | None] = DatasetFormat
    fields: str
    example: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.example and not isinstance(_parsed(self.example), dict):
            raise SpecError(f"example of {self.name!r} must be a JSON object, one row, not {self.example!r}")


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
