"""The contract of benchmarks: figures that can be shown and repeated, of a model that stays as it is."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lmflow_core.contracts.benchmark import BenchmarkReport, BenchmarkSpec, Grid
from lmflow_core.contracts.settings import DataSettings, ModelSettings
from lmflow_core.contracts.tokens import EncodedSequence
from lmflow_core.data.dataset import DatasetMaker
from lmflow_core.errors import RequestError
from lmflow_core.models.opening import OpenModel, open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.contracts.base import ComponentContract
from lmflow_core.testing.others import loaded
from lmflow_core.testing.tensors import differing, state_of
from lmflow_core.workflows.decoder_answers import DecoderAnswers
from lmflow_core.workflows.measured_sets import measured_sets

_SEQUENCE = EncodedSequence(list(range(3, 30)), list(range(3, 30)))


@dataclass(frozen=True)
class Measured:
    """What a benchmark found of a small model, and the weights and likelihood of that before and after.

    ``data`` is what it is given beside the model: encoded examples or data sets, what writes answers, or nothing.
    """

    model: Any
    data: tuple[Any, ...]
    report: BenchmarkReport
    weights: tuple[Mapping[str, Any], Mapping[str, Any]]
    nll: tuple[float, float]
    modes: tuple[list[bool], list[bool]]


class BenchmarkContract(ComponentContract):
    """What a benchmark must do, tried on a small model.

    Give ``options`` with which the model, of 256 tokens and random weights, can be measured within seconds.
    """

    kind: ClassVar[str] = "benchmark"

    @pytest.fixture(scope="class")
    @classmethod
    def data_folder(
        cls, spec: BenchmarkSpec, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory
    ) -> Path | None:
        """Return a folder with a row of each form that it measures on, or None for one that brings its own data."""
        if not spec.examples:
            return None
        forms = [(form.spec.example, reader()) for form, reader in loaded(catalogue, "dataset") if form.spec.example]
        rows = [json.loads(row) for row, reader in forms if reader.read(json.loads(row)).kind in spec.examples]
        if not rows:
            pytest.skip("no form of rows that it measures on is installed: lmflow-datasets has some")
        folder = tmp_path_factory.mktemp("data")
        for number, row in enumerate(rows):  # the form is told from the first row of a file
            (folder / f"{number}.json").write_text(json.dumps([row]), encoding="utf-8")
        return folder

    @pytest.fixture(scope="class")
    @classmethod
    def measured(
        cls, spec: BenchmarkSpec, target: Any, option_values: Any, tiny_model: Path, data_folder: Path | None
    ) -> Measured:
        """Return what it finds of the small model."""
        catalogue = Catalogue.discover()
        opened = open_model(ModelSettings(model=str(tiny_model), device="cpu"), catalogue)
        data: tuple[Any, ...] = ()
        if data_folder is not None:
            data = (cls._data(spec, cls.made(target, option_values), data_folder, opened, catalogue),)
        if spec.answers:
            data = (*data, DecoderAnswers(opened, catalogue))
        model: Any = opened.load()
        before, nll, modes = state_of(model.network), _nll(model), _modes(model)
        _seed(1)
        report = cls._run(cls.made(target, option_values), model, data)
        modes_after = _modes(model)  # before anything else is asked, which may set them again
        after = state_of(model.network)
        return Measured(model, data, report, (before, after), (nll, _nll(model)), (modes, modes_after))

    @classmethod
    def _data(cls, spec: BenchmarkSpec, benchmark: Any, folder: Path, opened: OpenModel, catalogue: Catalogue) -> Any:
        """Return what it measures on: examples, or with answers the data sets that it names."""
        settings = DataSettings(dataset=(folder,), cache=False)
        if spec.answers:
            return measured_sets(benchmark.sets((folder,)), settings, spec.examples, None, opened, catalogue)
        return DatasetMaker(settings, opened, catalogue, accepted=spec.examples).make().rows

    @classmethod
    def _run(cls, benchmark: Any, model: Any, data: tuple[Any, ...]) -> BenchmarkReport:
        """Run it; a model that it cannot measure without options leaves it unchecked."""
        try:
            report: BenchmarkReport = benchmark.run(model, *data)
        except RequestError as error:
            if cls.options:
                raise
            pytest.skip(f"it cannot measure a small model so; give options: {error}")
        except Exception as error:
            raise AssertionError(
                f"run() raises {type(error).__name__}: {error}; a model that cannot be measured is a RequestError"
            ) from error
        return report

    def test_its_figures_are_numbers(self, measured: Measured) -> None:
        """The report holds finite numbers by name."""
        report = measured.report
        assert isinstance(report, BenchmarkReport), f"run() gives a {type(report).__name__}, no BenchmarkReport"
        assert report.metrics, "the report holds no figure"
        for name, value in report.metrics.items():
            assert isinstance(name, str), f"a figure is called {name!r}, which is no text"
            assert name.strip(), "a figure has no name"
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            assert is_number, f"{name} is {value!r}, a {type(value).__name__}"
            assert math.isfinite(value), f"{name} is {value}"

    def test_its_grid_can_be_drawn(self, measured: Measured) -> None:
        """Where there is a grid, each row has a value between 0 and 1 in each column, and all are named."""
        grid = measured.report.grid
        if grid is None:
            return
        assert isinstance(grid, Grid), f"the grid is a {type(grid).__name__}"
        labels = (grid.title, grid.column_label, grid.row_label, *grid.columns, *grid.rows)
        assert all(isinstance(label, str) and label for label in labels), f"labels that are no text: {labels}"
        assert len(grid.values) == len(grid.rows), f"{len(grid.values)} rows of values, and {len(grid.rows)} names"
        for name, row in zip(grid.rows, grid.values, strict=True):
            assert len(row) == len(grid.columns), f"row {name}: {len(row)} values in {len(grid.columns)} columns"
            outside = [value for value in row if not 0 <= value <= 1]
            assert not outside, f"row {name} holds {outside[0]}, which is not between 0 and 1"

    def test_its_samples_are_rows(self, measured: Measured) -> None:
        """What it tells of single questions can be written as JSON."""
        for sample in measured.report.samples:
            assert isinstance(sample, Mapping), f"a sample is a {type(sample).__name__}, no row of values by name"
            try:
                read = json.loads(json.dumps(sample, allow_nan=False))
            except (TypeError, ValueError) as error:
                raise AssertionError(f"a sample cannot be written as JSON: {error}") from error
            assert read == sample, f"a sample is another when it is read again: {sample}"

    def test_each_data_set_has_a_name(self, spec: BenchmarkSpec, component: Any, tmp_path: Path) -> None:
        """Data sets given by their files are all measured, those of one name in two folders too."""
        if not (spec.examples and spec.answers):
            return
        given = tuple(tmp_path / folder / f"{name}.jsonl" for folder, name in (("a", "x"), ("b", "x"), ("b", "y")))
        for path in given:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        sets = component.sets(given)
        assert all(isinstance(name, str) and name.strip() for name in sets), f"names that are none: {list(sets)}"
        assert sorted(sets.values()) == sorted(given), f"of {len(given)} data sets it measures {dict(sets)}"

    def test_it_repeats(self, measured: Measured, component: Any) -> None:
        """Run again, by a new object and whatever the state of random numbers, it finds the same."""
        _seed(2)
        again = component.run(measured.model, *measured.data)
        assert again == measured.report, f"it finds {dict(measured.report.metrics)}, and then {dict(again.metrics)}"

    def test_the_model_is_left(self, measured: Measured) -> None:
        """Behind it the model has the same weights and mode, and answers as before."""
        changed = differing(*measured.weights)
        assert not changed, f"weights changed: {', '.join(changed)}"
        assert measured.modes[0] == measured.modes[1], "parts of the network are in another mode: train() or eval()"
        assert measured.nll[0] == measured.nll[1], f"a likelihood was {measured.nll[0]}, and is {measured.nll[1]} now"

    def test_nothing_is_written(
        self, measured: Measured, component: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It writes no file into the working directory and nothing to standard output."""
        import contextlib
        import io

        monkeypatch.chdir(tmp_path)
        written = io.StringIO()
        with contextlib.redirect_stdout(written):
            component.run(measured.model, *measured.data)
        assert not list(tmp_path.iterdir()), f"it writes {', '.join(path.name for path in tmp_path.iterdir())}"
        assert not written.getvalue(), f"it prints {written.getvalue()[:200]!r}"

    def test_lmflow_evaluate_tells_its_figures(
        self,
        measured: Measured,
        spec: BenchmarkSpec,
        values: Mapping[str, object],
        tiny_model: Path,
        data_folder: Path | None,
        tmp_path: Path,
    ) -> None:
        """``lmflow evaluate --benchmark`` writes the same figures."""
        from lmflow_core.cli.main import run

        file = tmp_path / "found.json"
        flags = ["--model", str(tiny_model), "--device", "cpu", "--output-file", str(file)]
        flags += [] if data_folder is None else ["--dataset", str(data_folder)]
        flags += [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", _text(value))]
        assert run(["evaluate", "--benchmark", spec.name, *flags]) == 0, "lmflow evaluate fails"
        written = json.loads(file.read_text(encoding="utf-8"))
        found = written.get("metrics", written)
        other = {name for name, value in measured.report.metrics.items() if found.get(name) != value}
        assert not other, f"lmflow evaluate writes {written}, and run() gives {dict(measured.report.metrics)}"


def _seed(seed: int) -> None:
    """Begin random numbers anew, those of Python and of torch."""
    import torch

    random.seed(seed)
    torch.manual_seed(seed)


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _nll(model: Any) -> float:
    (score,) = model.score([_SEQUENCE])
    return float(score.nll)


def _modes(model: Any) -> list[bool]:
    return [part.training for part in model.network.modules()]
