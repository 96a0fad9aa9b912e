"""Several machines train one run over TCP; one that is lost is named, waited for, and goes on with the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.testing.hosts import HostNetwork, hosts

_SILENCE = 4
# Stands in for training: it waits until the job was started again.
_PROGRAM = """
import os, sys, time
if "--resume" not in sys.argv:
    time.sleep(60)
"""
_LAUNCHER = """
import sys
from pathlib import Path
from lmflow_core.api import CommandLine
from lmflow_transformers.launching import launcher, ranks
from lmflow_transformers.options import LaunchOptions

folder, file = Path(sys.argv[1]), Path(sys.argv[2])
make = ranks.LocalRanks
launcher.LocalRanks = lambda arguments, logs: make(arguments, logs, (sys.executable, "-c", {program!r}))
options = LaunchOptions(hostfile=file, max_restarts=1, host_timeout=2, join_timeout=30)
sys.exit(launcher.ProcessLauncher(options).launch(CommandLine((), folder / "out", "cpu", False)))
"""


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def two() -> Iterator[HostNetwork]:
    yield from _machines(2)


@pytest.fixture
def four() -> Iterator[HostNetwork]:
    yield from _machines(4)


def _machines(count: int) -> Iterator[HostNetwork]:
    with hosts(count) as network:
        if isinstance(network, str):
            pytest.skip(network)
        yield network


@pytest.fixture(scope="module")
def flags(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("hosts")
    rows = [
        {"messages": [{"role": "user", "content": f"hello {n}"}, {"role": "assistant", "content": "world " * (n + 1)}]}
        for n in range(8)
    ]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    shared = ["--lr", "1e-2", "--epochs", "12", "--logging-steps", "1", "--save-steps", "4", "--tuner", "full"]
    return ["finetune", "--model", str(tiny_model), "--dataset", str(folder / "data.jsonl"), *shared]


@pytest.fixture(scope="module")
def undisturbed(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Return the losses of one process with four rows a step."""
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    command = [sys.executable, "-m", "lmflow_core", *flags, "--batch-size", "4", "--output", str(folder)]
    subprocess.run(command, check=True, env=_environment(), capture_output=True)
    return _losses(folder)


def _losses(folder: Path) -> list[float]:
    return [loss for _, loss in json.loads((folder / "run.json").read_text())["losses"]]


class _Job:
    """The same command on each machine."""

    def __init__(self, network: HostNetwork, command: Sequence[str], folder: Path) -> None:
        self.network = network
        self._command = command
        self._folder = folder
        self.launchers: list[subprocess.Popen[Any]] = []
        for host in range(len(network.addresses)):
            self.launchers.append(self._started(host))

    def _started(self, host: int) -> subprocess.Popen[Any]:
        return self.network.start(host, self._command, self._folder / f"{host}.log", _environment())

    def said(self, host: int) -> str:
        return (self._folder / f"{host}.log").read_text(encoding="utf-8")

    def wait_for(self, text: str, host: int, seconds: float) -> float:
        """Wait until a machine says something; return the seconds it took."""
        began = time.monotonic()
        while text not in self.said(host):
            assert time.monotonic() - began < seconds, self.said(host)
            time.sleep(0.02)
        return time.monotonic() - began

    def lose(self, host: int) -> None:
        """End a machine's launcher, and with it its processes."""
        self.launchers[host].send_signal(signal.SIGKILL)
        self.launchers[host].wait()

    def come_back(self, host: int) -> None:
        self.launchers[host] = self._started(host)

    def ended(self) -> list[int]:
        try:
            return [launcher.wait(timeout=200) for launcher in self.launchers]
        finally:
            for launcher in self.launchers:
                launcher.kill()


def _hostfile(network: HostNetwork, folder: Path) -> Path:
    file = folder / "hosts"
    file.write_text("".join(f"{address} slots=1\n" for address in network.addresses))
    return file


def _trained(network: HostNetwork, flags: Sequence[str], folder: Path, *more: str) -> _Job:
    shared = ["--hostfile", str(_hostfile(network, folder)), "--output", str(folder / "out")]
    return _Job(network, [sys.executable, "-m", "lmflow_core", *flags, *shared, *more], folder)


@pytest.mark.parametrize("cut", [0, 1])
def test_a_machine_whose_cable_is_pulled_is_lost_in_time_and_comes_back(
    cut: int, two: HostNetwork, tmp_path: Path
) -> None:
    mark = tmp_path / "out" / "checkpoints" / "checkpoint-2" / "checkpoint.json"
    launcher = _LAUNCHER.format(program=_PROGRAM)
    job = _Job(two, [sys.executable, "-c", launcher, str(tmp_path), str(_hostfile(two, tmp_path))], tmp_path)
    job.wait_for("rank 1 of 2 started", 1, 20)
    mark.parent.mkdir(parents=True)
    mark.touch()
    two.cut(cut)
    address = two.addresses
    took = job.wait_for(f"lost host {address[1]} (rank 1 of 2): nothing was heard from it for 2 s", 0, 20)
    job.wait_for(f"lost host {address[0]}, the first of the job: nothing was heard for 2 s", 1, 20)
    assert 1 < took < 6
    two.mend(cut)
    assert job.ended() == [0, 0]
    assert "starting again (1 of 1 restarts), from the last checkpoint" in job.said(0)


def test_a_machine_that_is_dead_is_named(two: HostNetwork, tmp_path: Path) -> None:
    two.cut(1)
    file = _hostfile(two, tmp_path)
    flags = ["--model", "m", "--dataset", "d", "--output", str(tmp_path / "out")]
    command = [sys.executable, "-m", "lmflow_core", "finetune", *flags, "--hostfile", str(file), "--join-timeout", "2"]
    assert two.start(0, command, tmp_path / "0.log", _environment()).wait(timeout=60) == 1
    said = (tmp_path / "0.log").read_text()
    assert f"lmflow: error: host {two.addresses[1]} did not come within 2 s" in said


@pytest.mark.slow
def test_two_machines_train_one_run(
    two: HostNetwork, flags: list[str], undisturbed: list[float], tmp_path: Path
) -> None:
    job = _trained(two, flags, tmp_path, "--batch-size", "2")
    assert job.ended() == [0, 0], job.said(0)
    assert _losses(tmp_path / "out") == pytest.approx(undisturbed, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("host", "how"), [(0, "killed"), (1, "killed"), (0, "cut"), (1, "cut")])
def test_a_lost_machine_comes_back_and_the_losses_are_those_of_an_undisturbed_run(
    host: int, how: str, two: HostNetwork, flags: list[str], undisturbed: list[float], tmp_path: Path
) -> None:
    times = ["--max-restarts", "1", "--host-timeout", str(_SILENCE), "--join-timeout", "100"]
    job = _trained(two, flags, tmp_path, "--batch-size", "2", *times)
    while not (tmp_path / "out" / "checkpoints" / "checkpoint-8").exists():
        assert [launcher.poll() for launcher in job.launchers] == [None, None], job.said(0)
        time.sleep(0.005)
    if how == "cut":
        two.cut(host)
    else:
        job.lose(host)
    job.wait_for(f"lost host {two.addresses[host]}", 1 - host, _SILENCE + 10)
    if how == "cut":
        two.mend(host)
    else:
        job.come_back(host)
    assert job.ended() == [0, 0], job.said(0)
    assert "going on from" in job.said(0)
    assert _losses(tmp_path / "out") == pytest.approx(undisturbed, abs=1e-4)


@pytest.mark.slow
def test_four_machines_train_one_run_though_one_is_cut_off(
    four: HostNetwork, flags: list[str], undisturbed: list[float], tmp_path: Path
) -> None:
    times = ["--max-restarts", "1", "--host-timeout", "10", "--join-timeout", "200"]
    job = _trained(four, flags, tmp_path, "--batch-size", "1", *times)
    while not (tmp_path / "out" / "checkpoints" / "checkpoint-8").exists():
        assert [launcher.poll() for launcher in job.launchers] == [None] * 4, job.said(0)
        time.sleep(0.005)
    four.cut(2)
    job.wait_for(f"lost host {four.addresses[2]} (rank 2 of 4): nothing was heard from it for 10 s", 0, 30)
    four.mend(2)
    assert job.ended() == [0] * 4, job.said(0)
    assert _losses(tmp_path / "out") == pytest.approx(undisturbed, abs=1e-4)
