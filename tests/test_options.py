"""Options: from what was typed or written to values of the right type, or one message."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import pytest

from lmflow_core.errors import OptionError
from lmflow_core.options import build, fields_of, option, to_values


@dataclass(frozen=True, kw_only=True)
class Options:
    needed: str = option(help="It is needed.")
    truth: bool = option(False, help="Truth.")
    whole: int = option(4, help="Whole.", minimum=1, maximum=10)
    real: float = option(0.5, help="Real.", above=0, maximum=1)
    text: str = option("a", help="Text.", choices=("alpha", "beta", "a"), aliases=("old_text",))
    path: Path | None = option(None, help="Path.")
    limit: Optional[int] = option(None, help="Limit.", minimum=2)  # noqa: UP045 - the old form means the same
    many: tuple[int, ...] = option((), help="Many.", minimum=0)
    names: tuple[str, ...] | None = option(("all",), help="Names.")


def _parse(name: str, value: object) -> Any:
    return getattr(build(Options, {"needed": "x", name: value}), name)


def test_fields_are_read_from_the_class() -> None:
    fields = {field.name: field for field in fields_of(Options)}
    assert list(fields) == ["needed", "truth", "whole", "real", "text", "path", "limit", "many", "names"]
    assert [name for name, field in fields.items() if field.required] == ["needed"]
    assert [name for name, field in fields.items() if field.optional] == ["path", "limit", "names"]
    assert [name for name, field in fields.items() if field.many] == ["many", "names"]
    assert [field.type for field in fields.values()] == [str, bool, int, float, str, Path, int, int, str]
    assert (fields["text"].aliases, fields["text"].choices) == (("old_text",), ("alpha", "beta", "a"))
    assert fields["needed"].flag == "--needed"


def test_defaults_stand_where_nothing_is_given() -> None:
    assert build(Options, {"needed": "x", "unknown": 1}) == Options(needed="x")


ACCEPTED: list[tuple[str, object, object]] = [
    ("truth", "true", True),
    ("truth", "Yes", True),
    ("truth", "on", True),
    ("truth", 1, True),
    ("truth", "0", False),
    ("truth", "OFF", False),
    ("truth", "no", False),
    ("truth", False, False),
    ("whole", "7", 7),
    ("whole", 7.0, 7),
    ("whole", 1, 1),
    ("whole", "10", 10),
    ("real", "1e-4", 1e-4),
    ("real", 1, 1.0),
    ("text", "beta", "beta"),
    ("path", "a/b", Path("a/b")),
    ("path", "~/x", Path.home() / "x"),
    ("path", "~nobody-of-that-name/x", Path("~nobody-of-that-name/x")),
    ("path", None, None),
    ("path", "none", None),
    ("limit", "none", None),
    ("limit", "3", 3),
    ("many", "1, 2,3", (1, 2, 3)),
    ("many", [1, "2"], (1, 2)),
    ("many", "5", (5,)),
    ("names", "q_proj,v_proj", ("q_proj", "v_proj")),
    ("names", None, None),
    ("names", (), ()),
    ("needed", 1.5, "1.5"),
    ("needed", "none", "none"),
    ("needed", "", ""),
]


@pytest.mark.parametrize(("name", "value", "expected"), ACCEPTED)
def test_values_are_turned_into_the_type_of_the_field(name: str, value: object, expected: object) -> None:
    parsed = _parse(name, value)
    assert parsed == expected
    assert type(parsed) is type(expected)


REFUSED: list[tuple[str, object, str]] = [
    ("truth", "maybe", "--truth: expected true or false, got 'maybe'"),
    ("truth", "", "--truth: expected true or false, got ''"),
    ("truth", 2, "--truth: expected true or false, got 2"),
    ("whole", "many", "--whole: expected a whole number, got 'many'"),
    ("whole", "2.5", "--whole: expected a whole number, got '2.5'"),
    ("whole", 2.5, "--whole: expected a whole number, got 2.5"),
    ("whole", True, "--whole: expected a whole number, got True"),
    ("whole", float("inf"), "--whole: expected a whole number, got inf"),
    ("whole", [1], "--whole: expected a whole number, got [1]"),
    ("whole", None, "--whole: a value is missing"),
    ("whole", "none", "--whole: expected a whole number, got 'none'"),
    ("whole", "0", "--whole: 0 is below the smallest value allowed, 1"),
    ("whole", 11, "--whole: 11 is above the largest value allowed, 10"),
    ("real", "half", "--real: expected a number, got 'half'"),
    ("real", False, "--real: expected a number, got False"),
    ("real", 0, "--real: 0.0 must be above 0"),
    ("real", "1.5", "--real: 1.5 is above the largest value allowed, 1"),
    ("real", "nan", "--real: nan is not a finite number"),
    ("real", "-inf", "--real: -inf is not a finite number"),
    ("text", "alpa", "--text: 'alpa' is not one of alpha, beta, a. Did you mean 'alpha'?"),
    ("text", "xyzzy", "--text: 'xyzzy' is not one of alpha, beta, a."),
    ("needed", True, "--needed: expected text, got True"),
    ("needed", ["x"], "--needed: expected text, got ['x']"),
    ("needed", None, "--needed: a value is missing"),
    ("path", "", "--path: expected a path, got ''"),
    ("path", 5, "--path: expected a path, got 5"),
    ("limit", 1, "--limit: 1 is below the smallest value allowed, 2"),
    ("many", "1,x", "--many: expected a whole number, got 'x'"),
    ("many", "1,-1", "--many: -1 is below the smallest value allowed, 0"),
    ("many", 5, "--many: expected a list, got 5"),
    ("many", {"a": 1}, "--many: expected a list, got {'a': 1}"),
    ("many", None, "--many: a value is missing"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_wrong_values_are_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(OptionError) as raised:
        _parse(name, value)
    assert str(raised.value) == message
    assert raised.value.exit_status == 2


def test_messages_tell_where_the_value_stood() -> None:
    with pytest.raises(OptionError, match=r"^run\.yaml: --whole: 0 is below"):
        build(Options, {"needed": "x", "whole": 0}, "run.yaml: ")
    with pytest.raises(OptionError, match=r"^run\.yaml: --needed is required: It is needed\.$"):
        build(Options, {}, "run.yaml: ")


def test_a_class_may_refuse_a_combination() -> None:
    @dataclass(frozen=True)
    class Pair:
        low: int = option(1, help="Low.")
        high: int = option(2, help="High.")

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("--low must not be above --high")

    assert build(Pair, {"high": 3}) == Pair(1, 3)
    with pytest.raises(OptionError, match=r"^run\.yaml: --low must not be above --high$"):
        build(Pair, {"low": 3}, "run.yaml: ")


def test_values_written_out_make_the_same_options_again() -> None:
    options = Options(needed="x", path=Path("a/b"), many=(1, 2), names=None, real=1e-8)
    values = to_values(options)
    assert values["path"] == "a/b"
    assert values["many"] == [1, 2]
    assert values["names"] is None
    assert build(Options, values) == options


def test_types_that_flags_cannot_have_are_refused() -> None:
    @dataclass(frozen=True)
    class Either:
        x: int | str = option(1, help="Either.")

    @dataclass(frozen=True)
    class Nested:
        x: tuple[tuple[int, ...], ...] = option((), help="Nested.")

    for options, shown in ((Either, r"int \| str"), (Nested, r"tuple\[tuple\[int, \.\.\.\], \.\.\.\]")):
        with pytest.raises(TypeError, match=f"^the field 'x' is of type {shown}; options are bool, int"):
            fields_of(options)
