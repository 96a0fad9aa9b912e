"""Options of the verifiers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lmflow_core.api import option


@dataclass(frozen=True, kw_only=True)
class ExactOptions:
    """What an answer is compared with."""

    exact_field: str = option("answer", help="The field of a row that holds the right answer, a text or several.")
    exact_ignore_case: bool = option(False, help="Take capitals and small letters for the same.")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model judges."""

    reward_model: str | None = option(
        None,
        help="Reward model: a folder, a hub name, or an adapter of one.",
        aliases=("reward_model_name_or_path",),
    )


@dataclass(frozen=True, kw_only=True)
class RegexOptions:
    """What an answer must look like."""

    regex_pattern: str | None = option(None, help="The regular expression (Python's).")
    regex_search: bool = option(False, help="Let it match a part of the answer instead of the whole.")

    def __post_init__(self) -> None:
        try:
            re.compile(self.regex_pattern or "")
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"--regex-pattern {self.regex_pattern!r} is no regular expression: {error}") from error


@dataclass(frozen=True, kw_only=True)
class JsonSchemaOptions:
    """What a JSON answer must hold."""

    json_schema_file: Path | None = option(None, help="The schema, a JSON file; that of each row when left out.")
    json_schema_field: str = option("schema", help="The field of a row that holds its schema.")
    json_schema_strict: bool = option(False, help="Score 1 or 0, without numbers for what is nearly right.")


@dataclass(frozen=True, kw_only=True)
class ArithmeticOptions:
    """What number an answer must come to."""

    arithmetic_field: str = option(
        "answer", help="The field of a row whose number is right: that behind '####' (as in GSM8K), or the last."
    )
    arithmetic_tolerance: float = option(1e-6, help="How far two numbers that are the same may be apart.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class LengthOptions:
    """How long an answer may be."""

    length_most: int = option(100, help="Words (or characters) from which on an answer is too long.", minimum=1)
    length_least: int = option(1, help="Words (or characters) below which an answer is too short.", minimum=0)
    length_unit: str = option("words", help="What is counted.", choices=("words", "characters"))

    def __post_init__(self) -> None:
        if self.length_least > self.length_most:
            raise ValueError(f"--length-least {self.length_least} is above --length-most {self.length_most}")
