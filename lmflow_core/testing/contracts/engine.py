"""The contract of engines: processes that are told apart, what they leave behind, and a job that is that of one."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lmflow_core.contracts.dataset import DatasetSpec
from lmflow_core.contracts.engine import EngineSpec
from lmflow_core.contracts.model import LoadPlan
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.errors import RequestError
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.contracts.base import ComponentContract
from lmflow_core.testing.engine_probe import LAUNCHING, PROBES, VALUES, changes, state

_TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
_SEVERAL = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
_TEXTS = ("The quick brown fox jumps.", "hello world", "What is the capital of France?", "no")
_SECONDS = 400


class EngineContract(ComponentContract):
    """What an engine must do: in one process, or in the two that its launcher starts.

    Attributes:
        launcher: the arguments of Python that start a program in two processes. Left out, it is torchrun for an engine
            that is chosen by torchrun's variables, and none for one that is chosen by no variables.
        tolerance: by how much, relatively, losses may differ from those of one process.
    """

    kind: ClassVar[str] = "engine"
    launcher: ClassVar[tuple[str, ...]] = ()
    tolerance: ClassVar[float] = 1e-4

    @pytest.fixture(scope="class")
    @classmethod
    def launching(cls, spec: EngineSpec) -> tuple[str, ...]:
        """Return how its processes are started; nothing where it is one process."""
        if cls.launcher or not spec.environment:
            return cls.launcher
        if "RANK" not in spec.environment:
            pytest.skip(f"it is started with {', '.join(spec.environment)} set: give launcher")
        return _TORCHRUN

    @pytest.fixture(scope="class")
    @classmethod
    def seen(
        cls,
        spec: EngineSpec,
        values: Mapping[str, object],
        launching: Sequence[str],
        target: Any,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> list[dict[str, Any]]:
        """Return what each of its processes sees, in the order of their ranks."""
        seen: dict[int, dict[str, Any]] = {}
        for probe in PROBES:
            folder = tmp_path_factory.mktemp(probe)
            program = ["-m", "lmflow_core.testing.engine_probe", probe]
            _launch([*launching, *program, spec.name, json.dumps(dict(values)), folder])
            for path in folder.iterdir():
                found = json.loads(path.read_text(encoding="utf-8"))
                seen.setdefault(int(found["rank"]), {}).update(found)
        return [seen[rank] for rank in sorted(seen)]

    def test_processes_are_told_apart(self, seen: list[dict[str, Any]], launching: Sequence[str]) -> None:
        """``start`` gives a world, with a rank for each process and how many there are."""
        count = 2 if launching else 1
        assert all(one["is_world"] for one in seen), "start() gives no World"
        places = [(one["rank"], one["size"]) for one in seen]
        assert places == [(rank, count) for rank in range(count)], f"ranks and sizes of {count}: {places}"

    def test_values_are_gathered_in_order(self, seen: list[dict[str, Any]]) -> None:
        """``all_gather`` gives every process what each passed, as it was, in the order of their ranks."""
        wanted = [[[one["rank"], value] for one in seen] for value in VALUES]
        for one in seen:
            for found, due in zip(one["gathered"], wanted, strict=True):
                assert found == due, f"process {one['rank']} is given {str(found)[:200]}, and not {str(due)[:200]}"

    def test_errors_pass(self, seen: list[dict[str, Any]]) -> None:
        """An error within its context comes out of it."""
        silent = [one["rank"] for one in seen if not one["error_passes"]]
        assert not silent, f"an error within start() is swallowed in the processes {silent}"

    def test_the_process_is_left(self, seen: list[dict[str, Any]]) -> None:
        """Behind its context, and behind an error in it, variables, folder and process group are as they were."""
        for one in seen:
            for when, changed in (("behind it", one["behind"]), ("behind an error in it", one["behind_error"])):
                assert not changed, f"{when}, process {one['rank']} finds changed: {', '.join(changed)}"

    def test_arguments_are_those_of_the_trainer(self, seen: list[dict[str, Any]]) -> None:
        """What it adds to the arguments of the trainer, transformers knows."""
        assert all(one["is_mapping"] for one in seen), "trainer_arguments() gives no mapping"
        if importlib.util.find_spec("transformers") is None:
            pytest.skip("transformers is not installed")
        from transformers import TrainingArguments

        known = {field.name for field in dataclasses.fields(TrainingArguments)}
        unknown = sorted({name for one in seen for name in one["arguments"]} - known)
        assert not unknown, f"transformers' TrainingArguments have no {', '.join(unknown)}"

    def test_the_plan_stays_a_plan(self, component: Any) -> None:
        """A load plan becomes a load plan, the one given is left as it is."""
        plan = LoadPlan()
        found = component.plan(plan)
        assert isinstance(found, LoadPlan), f"plan() gives {found!r}"
        assert plan == LoadPlan(), "plan() changes the plan that it is given"

    def test_all_weights_are_gathered(self, component: Any, launching: Sequence[str], tiny_model: Path) -> None:
        """``full_weights`` gives every weight by name, or None where the process has them all."""
        if launching:
            return  # the result of its processes is looked at when they train
        model: Any = open_model(ModelSettings(model=str(tiny_model), device="cpu"), Catalogue.discover()).load()
        with component.start():
            found = component.full_weights(model)
        if found is not None:
            lost = [name for name, _ in model.network.named_parameters() if name not in found]
            assert not lost, f"full_weights() lacks {', '.join(lost)}"

    def test_other_surroundings_are_refused(
        self, component: Any, spec: EngineSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without its launcher, or as one process within the job of another, it refuses and leaves nothing."""
        surroundings: Mapping[str, str] = {} if spec.environment else _SEVERAL
        for name in {*spec.environment, *_SEVERAL}:
            monkeypatch.delenv(name, raising=False)
        for name, value in surroundings.items():
            monkeypatch.setenv(name, value)
        told = "without the variables of its launcher" if spec.environment else f"with {surroundings}"
        before = state()
        problem = _start_problem(component)
        assert problem is None, f"{told} {problem}"
        assert not changes(before, state()), f"refusing, it changes {', '.join(changes(before, state()))}"

    def test_its_launcher_starts_nothing_unasked(
        self, spec: EngineSpec, values: Mapping[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Its launcher, if it has one, leaves a command to its process that asks for no others, and loads no torch."""
        if spec.launcher is None:
            return
        for name in {name for variables in (*spec.launchers(), tuple(_SEVERAL)) for name in variables}:
            monkeypatch.delenv(name, raising=False)
        _launch(["-m", "lmflow_core.testing.engine_probe", LAUNCHING, spec.name, json.dumps(dict(values)), tmp_path])
        (found,) = (json.loads(file.read_text(encoding="utf-8")) for file in tmp_path.glob("*.json"))
        assert found["status"] is None, f"launch() gives {found['status']!r} for a command that asks for no processes"
        assert not found["heavy"], f"launch() has imported {', '.join(found['heavy'])}"

    def test_a_job_is_that_of_one_process(
        self,
        spec: EngineSpec,
        values: Mapping[str, object],
        seen: list[dict[str, Any]],
        launching: Sequence[str],
        catalogue: Catalogue,
        tiny_model: Path,
        tmp_path: Path,
    ) -> None:
        """Training has the losses of one process with the same rows in a step, and its result has every weight."""
        if not {"local"} <= set(catalogue.of(EngineSpec).names()) or "text_only" not in catalogue.of(DatasetSpec):
            pytest.skip("needs the engine 'local' and the form of rows 'text_only'")
        assert len(seen) == (2 if launching else 1), "its processes are not told apart"
        data = tmp_path / "data.json"
        data.write_text(json.dumps([{"text": text} for text in _TEXTS]), encoding="utf-8")
        flags = ["--model", str(tiny_model), "--dataset", str(data), "--device", "cpu", "--lr", "1e-2"]
        flags += ["--max-steps", "3", "--epochs", "3", "--logging-steps", "1", "--warmup-ratio", "0"]
        own = [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        one, several = tmp_path / "one", tmp_path / "several"
        _finetune((), one, [*flags, "--batch-size", "4", "--engine", "local"])
        batch = str(len(_TEXTS) // len(seen))
        _finetune(launching, several, [*flags, "--batch-size", batch, "--engine", spec.name, *own])
        wanted, found = _losses(one), _losses(several)
        assert found == pytest.approx(wanted, rel=self.tolerance), f"losses {found}, and {wanted} in one process"
        lost = sorted(_weights(one) - _weights(several))
        assert not lost, f"the result lacks the weights {', '.join(lost)}"


def _start_problem(engine: Any) -> str | None:
    """Return what is wrong with how an engine refuses to start; None where it refuses as it must."""
    try:
        with engine.start() as world:
            return f"it starts, as process {world.rank} of {world.size}"
    except RequestError as error:
        return None if str(error) else "it refuses without a reason"
    except Exception as error:
        return f"it raises {type(error).__name__}: {error}; a user is told by a RequestError"


def _finetune(launching: Sequence[str], folder: Path, flags: Sequence[str]) -> None:
    arguments = ["finetune", *flags, "--output", str(folder)]
    if launching:
        _launch([*launching, "-m", "lmflow_core", *arguments])
        return
    from lmflow_core.cli.main import run

    assert run(arguments) == 0, f"lmflow {' '.join(arguments)} fails"


def _launch(arguments: Sequence[object]) -> None:
    """Run Python with some arguments, each process on one thread.

    Raises:
        AssertionError: it fails, or takes too long.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{' '.join(command[1:6])} … does not end within {_SECONDS} seconds") from None
    assert done.returncode == 0, f"{' '.join(command[1:6])} … ends with status {done.returncode}: {_cause(done.stderr)}"


def _cause(stderr: str) -> str:
    """Return the line of a program's errors that tells most: the last that names an error, or the last."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line and "ChildFailedError" not in line]
    return ((named or lines or ["nothing is told"])[-1])[-300:]


def _losses(folder: Path) -> list[float]:
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return [float(loss) for _, loss in record["losses"]]


def _weights(folder: Path) -> set[str]:
    from safetensors import safe_open

    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            names |= set(weights.keys())
    return names
