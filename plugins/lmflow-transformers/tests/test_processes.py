"""Which processes a job has: hostfiles, the variables of launchers and of Slurm, and what the options ask for."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.api import CommandLine, LmflowError, RequestError, World
from lmflow_transformers.launching import launcher
from lmflow_transformers.launching.hosts import Host, expanded_nodes, own_place, read_hostfile
from lmflow_transformers.launching.launcher import ProcessLauncher
from lmflow_transformers.launching.slurm import slurm_step
from lmflow_transformers.options import LaunchOptions
from lmflow_transformers.processes import joined_processes, variables_of, world_of

_LAUNCHED = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
_SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_JOB_NODELIST": "gpu[07-08]"}
_COMMAND = CommandLine(("finetune",), Path("out"), "auto", False)
_FROM_OUTSIDE = ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "LMFLOW_STARTED_BY")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _FROM_OUTSIDE:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "hosts"


def test_a_hostfile_lists_machines_in_order(file: Path) -> None:
    file.write_text("# all\nnode-b slots=4\n\n10.0.0.7\tslots = 8  # big\n")
    assert read_hostfile(file) == (Host("node-b", 4), Host("10.0.0.7", 8))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a slots=2\nb slot=2\n", "line 2: 'b slot=2' must look like 'HOST slots=N', N from 1"),
        ("a\n", "line 1: 'a' must look like"),
        ("a slots=0", "line 1: 'a slots=0' must look like"),
        ("a slots=1\n\na slots=2", "line 3: a is there twice"),
        ("# nothing\n", "lists no machine"),
    ],
)
def test_a_bad_hostfile_is_refused_by_its_line(content: str, told: str, file: Path) -> None:
    file.write_text(content)
    with pytest.raises(RequestError) as error:
        read_hostfile(file)
    assert told in str(error.value)
    assert str(file) in str(error.value)


def test_a_machine_finds_itself_by_address_and_by_name(file: Path) -> None:
    assert own_place([Host("203.0.113.1", 1), Host("127.0.0.1", 1)], file) == 1
    assert own_place([Host(socket.gethostname(), 1), Host("203.0.113.1", 1)], file) == 0
    with pytest.raises(RequestError, match=r"is none of 203\.0\.113\.1, 203\.0\.113\.2: add it, or give --node-rank"):
        own_place([Host("203.0.113.1", 1), Host("203.0.113.2", 1)], file)
    with pytest.raises(RequestError, match=r"127\.0\.0\.1 and 127\.0\.0\.2 are both this machine: give --node-rank"):
        own_place([Host("127.0.0.1", 1), Host("127.0.0.2", 1)], file)


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        ("gpu7", ["gpu7"]),
        ("gpu[07-09,12],login", ["gpu07", "gpu08", "gpu09", "gpu12", "login"]),
        ("r[1-2]n[1,3].hpc", ["r1n1.hpc", "r1n3.hpc", "r2n1.hpc", "r2n3.hpc"]),
        ("a,b", ["a", "b"]),
    ],
)
def test_lists_of_nodes_are_expanded(nodes: str, names: list[str]) -> None:
    assert expanded_nodes(nodes) == names


def test_the_variables_of_a_launcher_make_a_world() -> None:
    assert world_of(variables_of({}, LaunchOptions())) == World()
    assert world_of(variables_of(_LAUNCHED, LaunchOptions())) == World(1, 2)


def test_the_variables_of_slurm_make_a_world() -> None:
    found = variables_of({**_SLURM, "SLURM_JOB_ID": "17"}, LaunchOptions())
    assert found.pop("MASTER_PORT").isdecimal()
    assert found == {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "gpu07"}
    assert variables_of(_SLURM, LaunchOptions(master_port=1234, master_addr="ib0"))["MASTER_ADDR"] == "ib0"
    # A step says more of itself than the job does, and a step of one process is no job of several.
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "gpu08"}
    assert variables_of({**_SLURM, **step, "SLURM_PROCID": "1"}, LaunchOptions())["MASTER_ADDR"] == "gpu08"
    assert variables_of({**_SLURM, "SLURM_NTASKS": "1"}, LaunchOptions()) == {}
    with pytest.raises(RequestError, match="SLURM_NTASKS is 'many', which is no number"):
        slurm_step({**_SLURM, "SLURM_NTASKS": "many"})


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"RANK": None}, "WORLD_SIZE is 2 and RANK is not set"),
        ({"MASTER_PORT": None, "LOCAL_RANK": None}, "RANK is set and LOCAL_RANK and MASTER_PORT not"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', which is no number"),
        ({"RANK": "2"}, "RANK is 2 in a job of WORLD_SIZE 2"),
    ],
)
def test_variables_that_contradict_each_other_are_refused(changed: dict[str, str | None], told: str) -> None:
    variables = {name: value for name, value in {**_LAUNCHED, **changed}.items() if value is not None}
    with pytest.raises(RequestError, match=told):
        world_of(variables_of(variables, LaunchOptions()))


def test_a_port_in_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for name, value in {**_LAUNCHED, "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(RequestError, match=f"port {port} is in use by another program"), joined_processes():
            pass


def test_a_process_that_waits_alone_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**_LAUNCHED, "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(RequestError, match=r"the processes of this job cannot meet at 127\.0\.0\.1:0: .*1/2 clients"),
        joined_processes(LaunchOptions(join_timeout=1.0)),
    ):
        pass


def test_losing_contact_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(LmflowError, match=r"another process of this job ended, .*: Connection closed by peer \[x\]"),
        joined_processes(alone=True),
    ):
        raise RuntimeError("Connection closed by peer [x]")
    with pytest.raises(RuntimeError, match="size mismatch"), joined_processes(alone=True):
        raise RuntimeError("size mismatch")


def _refused(options: LaunchOptions, command: CommandLine = _COMMAND) -> str:
    with pytest.raises(LmflowError) as error:
        ProcessLauncher(options).launch(command)
    return str(error.value)


def test_nothing_is_started_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ProcessLauncher(LaunchOptions(host_timeout=5)).launch(_COMMAND) is None
    for name, value in _SLURM.items():
        monkeypatch.setenv(name, value)
    assert ProcessLauncher(LaunchOptions(master_port=1234)).launch(_COMMAND) is None


@pytest.mark.parametrize(("variables", "why"), [(_LAUNCHED, "RANK is set"), (_SLURM, "SLURM_NTASKS counts several")])
def test_launchers_within_launchers_are_refused(
    variables: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    message = _refused(LaunchOptions(nproc="2"))
    assert message.startswith("--nproc is for processes that lmflow starts")
    assert why in message


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"nnodes": 2}, "--nnodes 2 needs --node-rank"),
        ({"nnodes": 2, "node_rank": 2, "master_addr": "a"}, "--node-rank 2 is beyond the last of 2 machines"),
    ],
)
def test_machines_that_are_not_told_enough_of_are_refused(options: dict[str, Any], told: str) -> None:
    assert told in _refused(LaunchOptions(**options))


def test_slots_and_processes_must_agree(file: Path) -> None:
    file.write_text("127.0.0.1 slots=2\n203.0.113.1 slots=3\n")
    message = _refused(LaunchOptions(hostfile=file, nproc="3"))
    assert message.startswith("--nproc 3 asks for 3 processes, and --hostfile says slots=2 of 127.0.0.1")


def test_each_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "visible_gpus", lambda: 2)
    assert "this machine has 2 GPUs" in _refused(LaunchOptions(nproc="3"))
    counted = ProcessLauncher(LaunchOptions(nproc="gpu"))
    assert counted._count(Host("localhost", None), "auto") == 2
    assert counted._count(Host("localhost", None), "cpu") == 1
    assert ProcessLauncher(LaunchOptions(nproc="3"))._count(Host("localhost", None), "cpu") == 3


@pytest.mark.parametrize("given", ["0", "-1", "many", "1.5"])
def test_a_number_of_processes_is_one(given: str) -> None:
    with pytest.raises(ValueError, match="must be a number of processes, auto or gpu"):
        LaunchOptions(nproc=given)


def test_what_starts_processes_needs_no_torch() -> None:
    program = "import sys, lmflow_transformers.launching.launcher; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
