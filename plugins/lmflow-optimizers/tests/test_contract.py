"""Every optimizer that runs on a CPU keeps the contract of optimizers."""

from __future__ import annotations

from typing import Any

import pytest

from lmflow_core.plugins.targets import missing_requirement
from lmflow_core.testing.contracts import OptimizerContract, PluginContract
from lmflow_optimizers.plugin import lmflow_register_optimizers

# Rates in other units than Adam's, with which the checks' few steps are enough.
_RATES = {"adadelta": 1.0, "lars": 1.0, "sgd_schedule_free": 0.1, "novograd": 1e-2, "yogi": 1e-2, "lamb": 1e-2}
_OPTIONS = {
    "galore": {"galore_rank": 2, "galore_interval_steps": 2},
    "apollo": {"apollo_rank": 2, "apollo_interval_steps": 2},
}


class TestPlugin(PluginContract):
    name = "optimizers"


class TestDummy(OptimizerContract):
    """One that learns nothing, and says so."""

    name = "dummy"

    @pytest.mark.xfail(reason="it ignores gradients", strict=True)
    def test_a_quadratic_falls(self, component: Any) -> None:
        """It never falls."""
        super().test_a_quadratic_falls(component)

    @pytest.mark.xfail(reason="it ignores gradients", strict=True)
    def test_a_model_learns(self, component: Any, catalogue: Any, tiny_model: Any, tmp_path: Any) -> None:
        """It never does."""
        super().test_a_model_learns(component, catalogue, tiny_model, tmp_path)


class TestAdaBound(OptimizerContract):
    """One whose bounds follow a schedule, and not the rate at which it begins."""

    name = "adabound"

    @pytest.mark.xfail(reason="the rate it ends with is an option of its own, not a share of the first", strict=True)
    def test_schedules_are_followed(self, component: Any) -> None:
        """Half by a schedule halves its bounds too."""
        super().test_schedules_are_followed(component)


def _contract(name: str, requires: tuple[str, ...]) -> type[OptimizerContract]:
    values: dict[str, Any] = {"name": name, "options": _OPTIONS.get(name, {}), "__module__": __name__}
    if name in _RATES:
        values["learning_rate"] = _RATES[name]
    made: type[OptimizerContract] = type(f"Test{name.title().replace('_', '')}", (OptimizerContract,), values)
    missing = any(missing_requirement(spec) for spec in lmflow_register_optimizers() if spec.name == name)
    skipped = pytest.mark.skipif(missing, reason=f"needs {', '.join(requires)}")
    return skipped(made) if requires else made


for _spec in lmflow_register_optimizers():
    if not _spec.name.startswith("paged_") and _spec.name not in ("adabound", "dummy"):
        _made = _contract(_spec.name, _spec.requires)
        globals()[_made.__name__] = _made
