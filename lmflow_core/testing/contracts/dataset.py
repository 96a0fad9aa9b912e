"""The contract of forms of rows: the example in its spec is read, and what is wrong in a row is told by its field."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, get_args

import pytest

from lmflow_core.contracts.dataset import DatasetSpec
from lmflow_core.contracts.examples import Conversation, Example, Prompt, check_prompt, check_trainable, parts
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.contracts.base import ComponentContract
from lmflow_core.testing.others import loaded

Row = dict[str, Any]
# In the place of a field: what a file may hold there by mistake.
_WRONG: tuple[object, ...] = (None, 7, True, "", " ", [], {}, [7], {"x": 7}, [None], "x", ["x"], float("nan"))
_ADDED = " Ünï 漢字 😀"


class DatasetContract(ComponentContract):
    """What a form of rows must do, tried on the example of its spec and on what becomes of it by mistakes.

    Attributes:
        rows: further rows of the form, beside the example of its spec.
    """

    kind: ClassVar[str] = "dataset"
    rows: ClassVar[tuple[Mapping[str, Any], ...]] = ()

    @classmethod
    def made(cls, target: Any, option_values: Any) -> Any:
        """Return a reader, as the core makes it."""
        return target()

    @pytest.fixture
    def samples(self, spec: DatasetSpec) -> list[Row]:
        """Return rows of the form."""
        found = [json.loads(spec.example)] if spec.example else []
        found += [copy.deepcopy(dict(row)) for row in self.rows]
        if not found:
            pytest.skip("no row to try it on: give the spec an example, or the test rows")
        return found

    @pytest.fixture(scope="class")
    @classmethod
    def others(cls, catalogue: Catalogue, provided: Any) -> dict[str, Any]:
        """Return readers of all other forms that are installed, by name."""
        return {found.qualified: form() for found, form in loaded(catalogue, cls.kind, but=provided.qualified)}

    def test_its_rows_are_recognised_and_read(self, component: Any, samples: list[Row]) -> None:
        """Its rows are recognised, and each becomes an example that can be trained on."""
        for row in samples:
            assert component.recognises(row) is True, f"{row} is not recognised"
            example = component.read(row)
            assert isinstance(example, get_args(Example)), f"{row} becomes {example!r}, no kind of example"
            assert _problem(example) is None, f"{row} becomes {example!r}: {_problem(example)}"

    def test_its_fields_are_described(self, spec: DatasetSpec, samples: list[Row]) -> None:
        """``fields`` names the fields of its example."""
        names = [name for name in samples[0] if name not in _words(spec.fields)]
        assert not names, f"fields of the example that {spec.fields!r} does not name: {', '.join(names)}"

    def test_no_other_form_takes_its_rows(self, samples: list[Row], others: Mapping[str, Any]) -> None:
        """No other form that is installed recognises its rows, so that none has to be asked for by name."""
        for row in samples:
            claimed = [name for name, reader in others.items() if _claims(reader, row)]
            assert not claimed, f"{row} is also a row of {', '.join(claimed)}"

    def test_rows_of_other_forms_are_not_its_own(self, component: Any, catalogue: Catalogue, provided: Any) -> None:
        """It recognises no example of another form, and asks it without an error."""
        for other in catalogue.of(DatasetSpec):
            if other.qualified != provided.qualified and other.spec.example:
                row = json.loads(other.spec.example)
                assert not component.recognises(row), f"it claims {row}, a row of {other.qualified}"

    def test_reading_leaves_the_row(self, component: Any, samples: list[Row]) -> None:
        """A row is the same behind its reading, and read again gives the same example."""
        for row in samples:
            before = copy.deepcopy(row)
            examples = [(component.recognises(row), component.read(row))[1] for _ in range(2)]
            assert row == before, f"reading changes {before} into {row}"
            assert examples[0] == examples[1], f"{row} becomes {examples[0]!r}, and then {examples[1]!r}"

    def test_every_text_counts(self, component: Any, samples: list[Row], spec: DatasetSpec) -> None:
        """What is added to a text of a field, in any language, stands in the example."""
        for row in samples:
            for name, value in row.items():
                if isinstance(value, str) and name in _words(spec.fields):
                    example = component.read({**row, name: value + _ADDED})
                    found = any(_ADDED.strip() in text for text in _texts(example))
                    assert found, f"{_ADDED!r} at the end of {name!r} is not in {example!r}"

    def test_other_fields_are_harmless(self, component: Any, samples: list[Row]) -> None:
        """Fields that it does not know change nothing, or are refused by name."""
        for row in samples:
            more = {**row, "unheard_of": {"x": 1}}
            assert component.recognises(more), "a row with one more field, 'unheard_of', is not recognised"
            example = _read(component, more, "with one more field, 'unheard_of'", ["unheard_of"])
            assert example in (None, component.read(row)), f"another field changes {row} into {example!r}"

    def test_a_mistake_is_told_by_its_field(self, component: Any, samples: list[Row], spec: DatasetSpec) -> None:
        """A row with a field missing, or of the wrong type, is a ValueError that names it or a whole example."""
        for row in samples:
            for path, mistaken in _mistakes(row):
                told = f"with {'.'.join(map(str, path))} as in {mistaken}"
                example = _read(component, mistaken, told, [*map(str, path), *_words(spec.fields)])
                if example is not None:
                    problem = _problem(example)
                    assert problem is None, f"{told}, it becomes {example!r}: {problem}"

    def test_a_text_of_the_wrong_type_is_refused(self, component: Any, samples: list[Row], spec: DatasetSpec) -> None:
        """A number or an object where a text belongs is refused, not written as one."""
        for row in samples:
            for name, value in row.items():
                for wrong in (7, {"x": 7}) if isinstance(value, str) and name in _words(spec.fields) else ():
                    example = _read(component, {**row, name: wrong}, f"with {name!r} {wrong!r}", _words(spec.fields))
                    assert example is None, f"{wrong!r} in the place of the text {name!r} becomes {example!r}"


def _read(reader: Any, row: Row, told: str, names: list[str]) -> Example | None:
    """Return an example, or None where a row is refused as it must be."""
    recognised = problem = example = None
    try:
        recognised = reader.recognises(row)
        example = reader.read(row)
        for part in parts(example):
            if isinstance(part, Conversation | Prompt):
                (check_trainable if isinstance(part, Conversation) else check_prompt)(part.messages)
    except ValueError as error:
        problem = str(error)
    except Exception as error:
        raise AssertionError(f"{told}, it raises {type(error).__name__}: {error}") from error
    assert isinstance(recognised, bool), f"{told}, recognises() gives {recognised!r}, or raises: {problem}"
    # Turns that are missing or out of order are told by the conversation's rules.
    known = problem is None or any(name in problem for name in (*names, "conversation", "turn"))
    assert known, f"{told}, the error names no field: {problem}"
    return example if problem is None else None


def _claims(reader: Any, row: Row) -> bool:
    """Whether a form recognises a row; one that fails at that is left out, as by the core."""
    try:
        return bool(reader.recognises(copy.deepcopy(row)))
    except Exception:
        return False


def _mistakes(row: Row) -> Iterator[tuple[tuple[object, ...], Row]]:
    """Yield rows in which a field is missing or something else, with the path to it, at any depth."""
    for path in _paths(row):
        for wrong in (..., *_WRONG):
            changed = copy.deepcopy(row)
            place: Any = changed
            for step in path[:-1]:
                place = place[step]
            if wrong is ...:
                del place[path[-1]]
            else:
                place[path[-1]] = wrong
            yield path, changed


def _paths(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    steps: Any = value.keys() if isinstance(value, Mapping) else range(len(value)) if isinstance(value, list) else ()
    for step in steps:
        yield from _paths(value[step], (*path, step))  # type: ignore[index]


def _problem(example: Example) -> str | None:
    """Return what keeps an example from being one: something in it is of another type, or nothing is in it."""
    texts = list(_texts(example))
    for found in _values(example):
        if isinstance(found, float) and found != found:
            return "it holds a number that is none"
    if any(not isinstance(text, str) for text in texts):
        return "a text in it is none"
    if texts and not any(text.strip() for text in texts):
        return "it is empty"
    return None


def _texts(example: object) -> Iterator[str]:
    yield from (value for value in _values(example) if isinstance(value, str))


def _values(value: object) -> Iterator[object]:
    """Yield the texts, numbers and the like within an example, without the roles of messages."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.name != "role":
                yield from _values(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _values(inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _values(inner)
    else:
        yield value


def _words(fields: str) -> list[str]:
    return re.findall(r"\w+", fields)
