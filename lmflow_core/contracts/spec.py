"""Specs: the frozen declarations with which a plugin offers something, one class per extension point.

A spec costs nothing to read. ``target`` is a ``"module:attribute"`` string that is imported only when somebody
chooses the name, so a plugin's ``plugin.py`` stays light.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lmflow_core.errors import SpecError
from lmflow_core.options import fields_of

_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]*$")
_TARGET = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
_DISTRIBUTION = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
_LONGEST_NAME = 64
_LONGEST_SUMMARY = 60
# The types of the fields of specs, as they are written, and what a message calls them.
_TYPES: dict[str, type | tuple[type, ...]] = {"str": str, "bool": bool, "float": (int, float), "tuple[str, ...]": tuple}
_WORDS = {"str": "text", "bool": "true or false", "float": "a number", "tuple[str, ...]": "a tuple"}
HOOK_PREFIX = "lmflow_register_"
TORCH = "torch"
# Flags with a meaning in every command, and those of the original LMFlow by which its scripts choose models and data.
RESERVED_OPTIONS = frozenset(("json", "help", "h", "debug", "no_plugin", "version")) | {
    "model_name_or_path",
    "dataset_path",
    "block_size",
    "resume_from_checkpoint",
    "arch_type",
    "use_lora",
    "use_qlora",
    "use_dora",
    "use_lisa",
    "use_flash_attention",
    "use_customized_optim",
    "bf16",
    "fp16",
    "do_rope_scaling",
    "train_on_prompt",
    "truncate_to_model_max_length",
    "sanity_check",
}


def check_target(field: str, target: str, name: str) -> None:
    """Refuse what is no ``"module:attribute"``, naming the field and the spec.

    Raises:
        SpecError: it is none.
    """
    if not _TARGET.fullmatch(target):
        raise SpecError(f"{field} {target!r} of {name!r} must look like 'module:attribute'")


@dataclass(frozen=True)
class Selector:
    """The option by which a user chooses a component.

    Attributes:
        name: of the option: ``tuner`` is the flag ``--tuner`` and the key of run files. Where the settings of a command
            have a field of that name, that field is the option.
        help: one sentence for ``--help``.
        defaults: the commands that have the option, with what each takes when it is left out; None is nothing.
        weighted: several may be chosen, each with a weight: ``name`` or ``name=0.5``, with commas between.
    """

    name: str
    help: str
    defaults: Mapping[str, str | None]
    weighted: bool = False


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What every spec has. What the core needs to know of a kind stands in its spec class, and nowhere else.

    Class attributes:
        kind: the word for such a component in listings and messages.
        contract: the protocol that ``target`` satisfies; None where it depends on the spec.
        selector: the option by which a user chooses one; None where they are chosen otherwise.

    Attributes:
        name: lower-case name by which a user chooses it, unique among the healthy plugins.
        target: ``"module:attribute"``, imported when the name is chosen.
        summary: one line of at most 60 characters for listings.
        aliases: other names that mean the same.
        requires: names of distributions that ``target`` needs beyond the plugin's own dependencies.
        options: a frozen dataclass whose fields become flags and run-file keys while the name is chosen.

    Raises:
        SpecError: a field does not have the form above.
    """

    kind: ClassVar[str] = ""
    contract: ClassVar[type | None] = None
    selector: ClassVar[Selector | None] = None

    name: str
    target: str
    summary: str
    aliases: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    options: type | None = None

    @classmethod
    def hook(cls) -> str:
        """Return the name of the hook that gives specs of this kind."""
        return f"{HOOK_PREFIX}{cls.kind}s"

    def contracts(self) -> tuple[type, ...]:
        """Return the protocols that the target of this very spec satisfies."""
        return () if self.contract is None else (self.contract,)

    def __post_init__(self) -> None:
        self._check_types()
        for name in (self.name, *self.aliases):
            if len(name) > _LONGEST_NAME:
                raise SpecError(f"{self.kind} name {name[:_LONGEST_NAME]!r}… is longer than {_LONGEST_NAME} characters")
            if not _NAME.fullmatch(name):
                raise SpecError(f"{self.kind} name {name!r} must match {_NAME.pattern}")
        check_target("target", self.target, self.name)
        if not self.summary.isprintable() or not 0 < len(self.summary) <= _LONGEST_SUMMARY:
            raise SpecError(f"summary of {self.name!r} must be one line of 1 to {_LONGEST_SUMMARY} characters")
        for distribution in self.requires:
            if not _DISTRIBUTION.fullmatch(distribution):
                raise SpecError(f"requires of {self.name!r} must hold names of distributions, not {distribution!r}")
        if self.options is not None:
            self._check_options(self.options)

    def _check_types(self) -> None:
        """Refuse values of other types: a string where several are meant would be taken letter by letter."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kinds = str(field.type).split(" | ")
            known = [kind for kind in kinds if kind in _TYPES]
            if not known or (value is None and "None" in kinds):
                continue
            if not any(isinstance(value, _TYPES[kind]) for kind in known):
                words = " or ".join(_WORDS[kind] for kind in known)
                raise SpecError(f"{field.name} of {self.name!r} must be {words}, not {value!r}")
            if isinstance(value, tuple) and not all(isinstance(part, str) for part in value):
                raise SpecError(f"{field.name} of {self.name!r} must hold text, not {value!r}")

    def _check_options(self, options: object) -> None:
        if not isinstance(options, type) or not dataclasses.is_dataclass(options):
            raise SpecError(f"options of {self.name!r} must be a dataclass, not {options!r}")
        try:
            fields = fields_of(options)
        except TypeError as error:
            raise SpecError(f"options of {self.name!r}: {error}") from error
        taken = RESERVED_OPTIONS.intersection(name for field in fields for name in (field.name, *field.aliases))
        if taken:
            raise SpecError(f"options of {self.name!r}: {min(taken)!r} is a flag of the core")
