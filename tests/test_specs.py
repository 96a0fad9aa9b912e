"""Specs refuse what they cannot mean, when they are made."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest

from lmflow_core.cli import main
from lmflow_core.cli.lmflow_names import SWITCHES
from lmflow_core.contracts.command import CORE_COMMANDS, CommandSpec
from lmflow_core.contracts.dataset import DatasetSpec
from lmflow_core.contracts.engine import EngineSpec
from lmflow_core.contracts.exporter import ExporterSpec
from lmflow_core.contracts.hooks import HOOKS, KINDS, SPEC_CLASSES, HookSpecs
from lmflow_core.contracts.objective import ObjectiveSpec
from lmflow_core.contracts.source import SourceSpec
from lmflow_core.contracts.spec import RESERVED_OPTIONS
from lmflow_core.contracts.tuner import TunerSpec
from lmflow_core.errors import SpecError
from lmflow_core.options import option


@dataclass(frozen=True)
class Options:
    lora_r: int = option(8, help="Rank.")


@dataclass(frozen=True)
class Undeclared:
    lora_r: int = 8


@dataclass(frozen=True)
class Shadowing:
    model_name_or_path: str = option("", help="A flag of the core.")


@dataclass(frozen=True)
class AliasedShadowing:
    lora_form: str = option("", help="A flag of the core.", aliases=("json",))


@dataclass(frozen=True)
class Untyped:
    lora_r: dict[str, int] = option(None, help="Ranks.")


def _tuner(**changes: Any) -> TunerSpec:
    return TunerSpec(**{"name": "lora", "target": "lmflow_lora.tuner:Tuner", "summary": "Adapters.", **changes})


def test_a_spec_is_frozen_and_its_kind_is_that_of_its_class() -> None:
    spec = _tuner(aliases=("lo-ra", "lora.2"), requires=("peft", "Some_Package.x"), options=Options)
    assert (spec.kind, spec.name, spec.learning_rate) == ("tuner", "lora", 2e-5)
    with pytest.raises(FrozenInstanceError):
        spec.name = "other"  # type: ignore[misc]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "upper case": ({"name": "LoRA"}, "tuner name 'LoRA' must match ^[a-z0-9][a-z0-9._-]*$"),
    "no name": ({"name": ""}, "tuner name '' must match ^[a-z0-9][a-z0-9._-]*$"),
    "a name that is qualified": ({"name": "a:b"}, "tuner name 'a:b' must match ^[a-z0-9][a-z0-9._-]*$"),
    "a line break": ({"name": "lora\n"}, "tuner name 'lora\\n' must match ^[a-z0-9][a-z0-9._-]*$"),
    "an alias": ({"aliases": ("fine", "-x")}, "tuner name '-x' must match ^[a-z0-9][a-z0-9._-]*$"),
    "aliases that are one text": ({"aliases": "qlora"}, "aliases of 'lora' must be a tuple, not 'qlora'"),
    "requires that is one text": ({"requires": "peft"}, "requires of 'lora' must be a tuple, not 'peft'"),
    "a version in requires": (
        {"requires": ("peft>=0.18",)},
        "requires of 'lora' must hold names of distributions, not 'peft>=0.18'",
    ),
    "a target without an attribute": (
        {"target": "lmflow_lora.tuner"},
        "target 'lmflow_lora.tuner' of 'lora' must look like 'module:attribute'",
    ),
    "a target with a line break": ({"target": "a:b\n"}, "target 'a:b\\n' of 'lora' must look like 'module:attribute'"),
    "no summary": ({"summary": ""}, "summary of 'lora' must be one line of 1 to 60 characters"),
    "a long summary": ({"summary": "x" * 61}, "summary of 'lora' must be one line of 1 to 60 characters"),
    "two lines": ({"summary": "a\nb"}, "summary of 'lora' must be one line of 1 to 60 characters"),
    "a name that is a list": ({"name": ["lora"]}, "name of ['lora'] must be text, not ['lora']"),
    "a name without end": ({"name": "x" * 65}, f"tuner name '{'x' * 64}'… is longer than 64 characters"),
    "an alias that is a number": ({"aliases": (5,)}, "aliases of 'lora' must hold text, not (5,)"),
    "a rate that is text": ({"learning_rate": "fast"}, "learning_rate of 'lora' must be a number, not 'fast'"),
    "a summary that colours": ({"summary": "\x1b[31m"}, "summary of 'lora' must be one line of 1 to 60 characters"),
    "an option of the core": (
        {"options": Shadowing},
        "options of 'lora': 'model_name_or_path' is a flag of the core",
    ),
    "an alias that is an option of the core": (
        {"options": AliasedShadowing},
        "options of 'lora': 'json' is a flag of the core",
    ),
    "options that are no dataclass": ({"options": int}, "options of 'lora' must be a dataclass, not <class 'int'>"),
    "an options object": ({"options": Options()}, "options of 'lora' must be a dataclass, not Options(lora_r=8)"),
    "an option without a declaration": (
        {"options": Undeclared},
        "options of 'lora': the field 'lora_r' is not declared with option()",
    ),
    "an option of a type flags cannot have": (
        {"options": Untyped},
        "options of 'lora': the field 'lora_r' is of type dict[str, int]; options are bool, int, float, str, Path, "
        "tuples of one of these, and either or None",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_spec_is_refused(case: str) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(SpecError) as raised:
        _tuner(**changes)
    assert str(raised.value) == message


def test_the_longest_summary_is_accepted() -> None:
    assert len(_tuner(summary="x" * 60).summary) == 60


def test_fields_of_one_kind_are_checked_too() -> None:
    with pytest.raises(SpecError, match=r"^examples of 'sft' must be a tuple, not 'text'$"):
        ObjectiveSpec(name="sft", target="a:b", summary="x", examples="text")  # type: ignore[arg-type]
    assert DatasetSpec(name="text", target="a:b", summary="x", fields="one text").fields == "one text"


@pytest.mark.parametrize("example", ["{", "[1]", '"text"', "7"])
def test_the_example_of_a_form_is_one_row(example: str) -> None:
    with pytest.raises(SpecError, match=r"^example of 'text' must be a JSON object, one row, not "):
        DatasetSpec(name="text", target="a:b", summary="x", fields="text", example=example)


def test_an_engine_needs_variables_of_a_launcher() -> None:
    with pytest.raises(SpecError, match=r"^environment of 'mine': HOME is set without any launcher$"):
        EngineSpec(name="mine", target="a:b", summary="x", environment=("RANK", "HOME"))
    with pytest.raises(SpecError, match=r"^environment of 'mine': PATH is set without any launcher$"):
        EngineSpec(name="mine", target="a:b", summary="x", environments=(("RANK",), ("PATH",)))


def test_an_engine_names_its_launcher_and_what_chooses_it() -> None:
    assert EngineSpec(name="mine", target="a:b", summary="x", chosen_by="one").choosing() == ("one",)
    assert EngineSpec(name="mine", target="a:b", summary="x", chosen_by=("one", "two")).choosing() == ("one", "two")
    with pytest.raises(SpecError, match=r"^chosen_by of 'mine' must be text or a tuple, not 7$"):
        EngineSpec(name="mine", target="a:b", summary="x", chosen_by=7)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"^launcher 'a' of 'mine' must look like 'module:attribute'$"):
        EngineSpec(name="mine", target="a:b", summary="x", launcher="a")


def test_files_of_the_core_are_read_by_the_core() -> None:
    with pytest.raises(SpecError, match=r"^\.jsonl files of 'mine': the core reads them$"):
        SourceSpec(name="mine", target="a:b", summary="x", suffixes=(".arrow", ".jsonl"))


def test_switches_of_the_original_are_reserved() -> None:
    assert {*SWITCHES} <= RESERVED_OPTIONS


@pytest.mark.parametrize("name", sorted(CORE_COMMANDS))
def test_the_cores_command_names_are_reserved(name: str) -> None:
    message = f"^the command name '{name}' is reserved for the core$"
    with pytest.raises(SpecError, match=message):
        CommandSpec(name=name, target="a:b", summary="x")
    with pytest.raises(SpecError, match=message):
        CommandSpec(name="fine", aliases=(name,), target="a:b", summary="x")


def test_a_command_does_one_thing() -> None:
    with pytest.raises(SpecError, match="cannot be one that chats and one that finetunes"):
        CommandSpec(name="both", target="a:b", summary="x", chats=True, finetunes=True)
    with pytest.raises(SpecError, match="has options but does not chat"):
        CommandSpec(name="both", target="a:b", summary="x", finetunes=True, options=Options)


def test_every_command_of_the_core_is_reserved() -> None:
    assert set(main.CORE_COMMANDS) == CORE_COMMANDS


def test_every_kind_has_one_class_one_hook_and_one_contract() -> None:
    assert list(KINDS) == [spec_class.kind for spec_class in SPEC_CLASSES]
    assert list(HOOKS.values()) == list(SPEC_CLASSES)
    assert list(HOOKS) == [f"lmflow_register_{kind}s" for kind in KINDS]
    assert [name for name in vars(HookSpecs) if not name.startswith("__")] == list(HOOKS)
    assert [kind for kind, spec_class in KINDS.items() if spec_class.contract is None] == ["command"]


def test_an_objective_learns_from_examples_that_there_are() -> None:
    values = {"name": "x", "target": "a:b", "summary": "A loss."}
    assert ObjectiveSpec(**values, examples=("preference", "prompt")).examples == ("preference", "prompt")  # type: ignore[arg-type]
    for wrong in ((), ("preferences",)):
        with pytest.raises(SpecError, match="examples of 'x' must be some of text, prompted, conversation, prompt, "):
            ObjectiveSpec(**values, examples=wrong)  # type: ignore[arg-type]


def test_an_exporter_says_what_it_takes() -> None:
    values = {"name": "x", "target": "a:b", "summary": "A form."}
    assert ExporterSpec(**values).takes == "weights"  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="takes of 'x' must be weights, files or adapter, not 'file'"):
        ExporterSpec(**values, takes="file")  # type: ignore[arg-type]
