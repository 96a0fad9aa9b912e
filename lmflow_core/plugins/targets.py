"""From a chosen spec to the code behind it, checked against the contract of its kind."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import inspect
from typing import Any, get_args

from lmflow_core.contracts.engine import EngineSpec, Launcher
from lmflow_core.contracts.spec import Spec
from lmflow_core.errors import PluginError, PluginLoadError
from lmflow_core.installing import how_to_install
from lmflow_core.plugins.official import official_distributions
from lmflow_core.plugins.provided import Provided
from lmflow_core.plugins.wording import one_line


def load_target(provided: Provided[Any]) -> Any:
    """Import the target of a spec and check it against the contract of its kind.

    Raises:
        PluginLoadError: the target lacks a distribution, cannot be imported or does not fit its contract.
    """
    _check_requirements(provided)
    target = _import_target(provided, provided.spec.target)
    for contract in provided.spec.contracts():
        _check_contract(provided, target, contract)
    return target


def load_launcher(provided: Provided[EngineSpec]) -> Any:
    """Import the launcher of an engine and check it; None where the engine has none.

    Raises:
        PluginLoadError: as :func:`load_target` does.
    """
    if provided.spec.launcher is None:
        return None
    _check_requirements(provided)
    launcher = _import_target(provided, provided.spec.launcher)
    _check_contract(provided, launcher, Launcher)
    return launcher


def _check_contract(provided: Provided[Any], target: Any, contract: type) -> None:
    if problem := contract_problem(target, contract):
        raise PluginLoadError(f"{_described(provided)} does not fit its contract: {problem}")


def _described(provided: Provided[Any]) -> str:
    plugin = provided.plugin
    return (
        f"{provided.spec.kind} {provided.spec.name!r} of plugin {plugin.name!r} "
        f"({plugin.distribution} {plugin.version}, target {provided.spec.target})"
    )


def missing_requirement(spec: Spec) -> str | None:
    """Return the first distribution that a spec's target needs and that is not installed, or None."""
    for requirement in spec.requires:
        try:
            importlib.metadata.version(requirement)
        except importlib.metadata.PackageNotFoundError:
            return requirement
    return None


def _check_requirements(provided: Provided[Any]) -> None:
    if requirement := missing_requirement(provided.spec):
        # A name like ours that is not official may be a stranger's: whoever declared it must tell where it comes from.
        known = not requirement.startswith("lmflow") or requirement in official_distributions()
        mend = how_to_install(requirement) if known else "not installed"
        raise PluginLoadError(f"{_described(provided)} needs {requirement}: {mend}")


def _import_target(provided: Provided[Any], target: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginLoadError(f"{_described(provided)} cannot be imported: {one_line(error)}") from error


def contract_problem(target: Any, contract: type) -> str | None:
    """Return what keeps a target from fitting a contract: a missing method or parameter, or None."""
    for name, method in vars(contract).items():
        if name.startswith("_") or not callable(method):
            continue
        if not callable(getattr(target, name, None)):
            return f"it has no method {name!r}"
        wanted = [p for p in inspect.signature(method).parameters if p != "self"]
        if missing := _missing_parameters(getattr(target, name), wanted):
            return f"{name}() does not take {', '.join(missing)}"
    return None


def _missing_parameters(function: Any, wanted: list[str]) -> list[str]:
    parameters = inspect.signature(function).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return []
    return [name for name in wanted if name not in parameters]


def returned(value: object, expected: Any, part: object, method: str) -> Any:
    """Return what a method of a plugin's component returned: a value of a class, or of one of a union of classes.

    Raises:
        PluginError: it is something else than it must be.
    """
    if not isinstance(value, expected):
        component = f"{type(part).__module__}.{type(part).__name__}"
        names = " or ".join(kind.__name__ for kind in get_args(expected) or (expected,))
        raise PluginError(f"{component}.{method}() returned a {type(value).__name__}, where a {names} is needed")
    return value
