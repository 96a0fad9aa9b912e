"""Forms of data rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from lmflow_core.contracts.examples import Example
from lmflow_core.contracts.spec import Spec


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

    Pure Python. ``fields`` describes the fields of a row in a few words, for error messages.

    Example::

        @hookimpl
        def lmflow_register_datasets():
            yield DatasetSpec(
                name="minutes",
                target="lmflow_minutes.rows:Minutes",
                summary="Minutes of meetings.",
                fields="speaker, said",
            )
    """

    kind: ClassVar[str] = "dataset"
    contract: ClassVar[type | None] = DatasetFormat
    fields: str
