"""What all contracts share: how a component is found and made, and that its checks cannot be replaced in silence.

A contract is a class of checks. A plugin's tests take it over and name what is checked::

    class TestPirate(TemplateContract):
        name = "pirate"

Each check is a test of pytest; the first line of its docstring is what listings call it.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from lmflow_core.contracts.spec import Spec
from lmflow_core.errors import RequestError
from lmflow_core.options import build, fields_of
from lmflow_core.plugins.provided import Provided
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.targets import missing_requirement
from lmflow_core.testing.fitting import misfits

CHECK = "test_"
_HERE = __name__.rpartition(".")[0]


@pytest.mark.usefixtures("no_network")
class Contract:
    """Checks that a plugin's tests take over; a check of the kit is given up only openly, with ``xfail``.

    Raises:
        TypeError: a class replaces a check of the kit without ``@pytest.mark.xfail(reason=…)``.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        kit = {name for base in cls.__mro__[1:] if base.__module__.startswith(_HERE) for name in vars(base)}
        for name, value in vars(cls).items():
            if name.startswith(CHECK) and name in kit and not _is_given_up(value):
                raise TypeError(
                    f"{cls.__name__}.{name} replaces a check of its contract; give the new one another name, or say "
                    "with @pytest.mark.xfail(reason=…) why the check cannot hold"
                )


def _is_given_up(check: Any) -> bool:
    return any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in getattr(check, "pytestmark", ()))


class ComponentContract(Contract):
    """What every component of a kind must do.

    Attributes:
        kind: of the component, such as ``tuner``.
        name: by which a user chooses it, or ``plugin:name``.
        options: values of its options, by name, where it needs others than the defaults. ``{fixture}`` in a text stands
            for what a fixture gives, such as ``{tiny_model}``.
    """

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""
    options: ClassVar[Mapping[str, object]] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def catalogue(cls) -> Catalogue:
        """Return the plugins that are installed."""
        return Catalogue.discover()

    @pytest.fixture(scope="class")
    @classmethod
    def provided(cls, catalogue: Catalogue) -> Provided[Any]:
        """Return the spec of the component with its plugin."""
        return catalogue.of_kind(cls.kind).find(cls.name)

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls, provided: Provided[Any]) -> Any:
        """Return the spec of the component."""
        return provided.spec

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, catalogue: Catalogue, provided: Provided[Any]) -> Any:
        """Return what the spec's target names."""
        if missing := missing_requirement(provided.spec):
            pytest.skip(f"{missing} is not installed")
        return catalogue.of_kind(cls.kind).load(provided.qualified)

    @pytest.fixture(scope="class")
    @classmethod
    def values(cls, spec: Any, request: pytest.FixtureRequest) -> dict[str, object]:
        """Return the values of the options that are not the defaults, fixtures filled in."""
        own = {field.name for field in fields_of(spec.options)} if spec.options else set()
        return {name: filled(value, request) for name, value in cls.options.items() if name in own}

    @pytest.fixture(scope="class")
    @classmethod
    def option_values(cls, spec: Any, values: dict[str, object], target: Any) -> Any:
        """Return the options object the component is made with; None when it has no options."""
        built = build(spec.options, values) if spec.options else None
        try:
            cls.made(target, built)
        except RequestError as error:
            if values:
                raise
            pytest.skip(f"it cannot do with its defaults: {error}; give its options, or --option NAME=VALUE")
        return built

    @classmethod
    def made(cls, target: Any, option_values: Any) -> Any:
        """Return a component made from its target, as the core makes it."""
        return target(option_values)

    @pytest.fixture
    def component(self, target: Any, option_values: Any) -> Any:
        """Return the component, made anew for each check."""
        return self.made(target, option_values)

    def test_the_spec_describes_itself(self, spec: Spec) -> None:
        """The summary is a sentence."""
        assert spec.summary.endswith("."), f"the summary {spec.summary!r} does not end with a full stop"
        first = spec.summary[0]
        assert first.isupper() or not first.isalpha(), f"the summary {spec.summary!r} does not begin with a capital"

    def test_options_can_be_used(self, spec: Spec, catalogue: Catalogue) -> None:
        """Options are frozen, described, and clash with none that they can meet."""
        if spec.options is None:
            return
        assert spec.options.__dataclass_params__.frozen, f"{spec.options.__name__} is not a frozen dataclass"  # type: ignore[attr-defined]
        taken = _options_of_others(self.kind, catalogue)
        for field in fields_of(spec.options):
            assert field.help.endswith("."), f"the help of {field.flag} is no sentence: {field.help!r}"
            owner = taken.get(field.name)
            assert owner is None, f"{field.flag} is an option of {owner} as well, which a command can have beside it"

    def test_the_target_fits_its_protocol(self, spec: Spec, component: Any) -> None:
        """The target has every method, attribute and property of its protocol, called as it is there."""
        problems = [problem for contract in spec.contracts() for problem in misfits(component, contract)]
        assert not problems, "; ".join(problems)


def filled(value: object, request: pytest.FixtureRequest) -> object:
    """Return a value; of a text, with what fixtures give in the place of their names in braces."""
    if not isinstance(value, str):
        return value
    names = [name for _, name, _, _ in string.Formatter().parse(value) if name]
    return value.format(**{name: request.getfixturevalue(name) for name in names}) if names else value


def _options_of_others(kind: str, catalogue: Catalogue) -> dict[str, str]:
    """Return who has an option of each name: the core's settings, and components of other kinds a command takes."""
    from lmflow_core.config.schema import CHAT, EVALUATE, EVALUATE_ANSWERS, EXPORT, FINETUNE, GENERATE

    taken: dict[str, str] = {}
    schemas = (FINETUNE, EVALUATE, EVALUATE_ANSWERS, EXPORT, GENERATE, CHAT)
    for schema in [schema for schema in schemas if kind in schema.selectors.values()]:
        for settings in schema.settings:
            taken |= {field.name: "the core" for field in fields_of(settings)}
        for other in set(schema.selectors.values()) - {kind}:
            for provided in catalogue.of_kind(other):
                fields = fields_of(provided.spec.options) if provided.spec.options else ()
                taken |= {field.name: f"the {other} {provided.spec.name}" for field in fields}
    return taken
