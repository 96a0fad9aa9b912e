"""Processes that are started, watched, started again and ended: with small programs in place of training."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.api import LmflowError, RequestError
from lmflow_transformers.launching.hosts import Host
from lmflow_transformers.launching.job import Job
from lmflow_transformers.launching.member import Member
from lmflow_transformers.launching.messages import Channel
from lmflow_transformers.launching.ranks import LocalRanks

# Each process notes that it runs, then does what its rank is to do in this start.
_BEGIN = """
import json, os, signal, sys, time
from pathlib import Path
rank, size, folder = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), Path(sys.argv[1])
def tell(message, lasting=True, status=1):
    Path(os.environ["LMFLOW_ERROR_FILE"]).write_text(
        json.dumps({"message": message, "traceback": "", "lasting": lasting}))
    sys.exit(status)
resumed = "--resume" in sys.argv
with (folder / f"starts-{rank}").open("a") as stream:
    stream.write("resumed " if resumed else "anew ")
"""
_WAIT = "time.sleep(60)"
_TOLD_LEFT = 'tell("another process of this job ended, or cannot be reached: closed by peer")'


def _job(folder: Path, **changes: Any) -> Job:
    job = Job(
        hosts=(Host("localhost", None),),
        node=0,
        count=2,
        address="127.0.0.1",
        port=0,
        max_restarts=0,
        host_timeout=1.0,
        join_timeout=2.0,
        checkpoints=folder / "checkpoints",
        resumes=False,
    )
    return replace(job, **changes)


def _ranks(folder: Path, script: str, place: str = "logs") -> LocalRanks:
    (folder / place).mkdir()
    return LocalRanks([str(folder)], folder / place, (sys.executable, "-c", _BEGIN + script))


def _starts(folder: Path, rank: int) -> list[str]:
    return (folder / f"starts-{rank}").read_text().split()


def _checkpoint(folder: Path) -> None:
    mark = folder / "checkpoints" / "checkpoint-2" / "checkpoint.json"
    mark.parent.mkdir(parents=True)
    mark.touch()


def _run(folder: Path, script: str, **changes: Any) -> int:
    return Member(_job(folder, **changes), _ranks(folder, script)).run()


def test_processes_are_told_their_places_and_end_well(tmp_path: Path) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "LMFLOW_STARTED_BY")
    script = f"(folder / f'seen-{{rank}}').write_text(json.dumps([os.environ[name] for name in {names}]))"
    assert _run(tmp_path, script) == 0
    places = [json.loads((tmp_path / f"seen-{rank}").read_text()) for rank in (0, 1)]
    assert places == [[str(rank), str(rank), "2", "2", "127.0.0.1", str(os.getpid())] for rank in (0, 1)]


@pytest.mark.parametrize(
    ("script", "status", "told"),
    [
        ('tell("--lr is wrong", status=2)', 2, "lmflow: error: --lr is wrong\n"),
        (
            f'tell("no such data", status=2) if rank else {_TOLD_LEFT}',
            2,
            "lmflow: error: rank 1 of 2: no such data\n",
        ),
        (
            f"os.kill(os.getpid(), signal.SIGKILL) if rank else {_TOLD_LEFT}",
            1,
            "lmflow: error: rank 1 of 2 was killed by SIGKILL: by somebody, or by the system for want of memory\n",
        ),
        (
            "exec('raise ValueError(7)') if rank else time.sleep(60)",
            1,
            "ValueError: 7\nlmflow: error: rank 1 of 2 ended with status 1\n",
        ),
    ],
)
def test_what_ended_the_job_is_told_once(
    script: str, status: int, told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert _run(tmp_path, script) == status
    assert time.monotonic() - began < 8
    said = capfd.readouterr().err
    assert said.endswith(told)
    assert said.count("lmflow: error:") == 1


_DIES_ONCE = f"""
if rank and not resumed:
    os.kill(os.getpid(), signal.SIGKILL)
if not resumed:
    {_WAIT}
"""


def test_a_lost_process_starts_the_job_again_from_its_checkpoint(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = 'import shutil; (folder / "checkpoints/checkpoint-2").mkdir(parents=True, exist_ok=True)\n'
    made += '(folder / "checkpoints/checkpoint-2/checkpoint.json").touch()\n'
    assert _run(tmp_path, made + _DIES_ONCE, max_restarts=1) == 0
    assert [_starts(tmp_path, rank) for rank in (0, 1)] == [["anew", "resumed"]] * 2
    said = capfd.readouterr().err
    assert "was killed by SIGKILL" in said
    assert "starting again (1 of 1 restarts), from the last checkpoint" in said
    assert "error" not in said


def test_without_a_checkpoint_of_this_job_it_starts_anew_until_its_restarts_are_used_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # One that was there before is of another run.
    _checkpoint(tmp_path)
    assert _run(tmp_path, _DIES_ONCE, max_restarts=1) == 1
    assert _starts(tmp_path, 1) == ["anew"] * 2
    assert capfd.readouterr().err.count("anew, as there is no checkpoint yet") == 1


def test_an_error_that_lasts_is_not_tried_again(tmp_path: Path) -> None:
    assert _run(tmp_path, 'tell("the loss is nan")', max_restarts=3) == 1
    assert _starts(tmp_path, 0) == ["anew"]


def test_memory_that_ran_out_is_tried_again(tmp_path: Path) -> None:
    script = 'tell("memory ran out", lasting=False) if len((folder / f"starts-{rank}").read_text().split()) < 2 else 0'
    assert _run(tmp_path, script, max_restarts=1) == 0


# -- several machines, each a thread ------------------------------------------------------------------------------


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


_TWO = (Host("a", 1), Host("b", 1))


class _Machine(threading.Thread):
    """A launcher beside others."""

    def __init__(self, folder: Path, script: str, node: int, port: int, **changes: Any) -> None:
        super().__init__(daemon=True)
        settings: dict[str, Any] = {"hosts": _TWO, "node": node, "count": 1, "port": port, **changes}
        self._member = Member(_job(folder, **settings), _ranks(folder, script, f"logs-{node}-{time.monotonic_ns()}"))
        self.status: int | None = None
        self.error: LmflowError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.status = self._member.run()
        except LmflowError as error:
            self.error = error

    def ended(self, seconds: float = 10) -> int | None:
        self.join(seconds)
        assert not self.is_alive(), "it does not end"
        return self.status


def test_machines_run_one_job(port: int, tmp_path: Path) -> None:
    second = _Machine(tmp_path, "assert size == 2 and rank == 1", 1, port)
    first = _Machine(tmp_path, "assert size == 2 and rank == 0", 0, port)
    assert (first.ended(), second.ended()) == (0, 0)
    assert [_starts(tmp_path, rank) for rank in (0, 1)] == [["anew"], ["anew"]]


def test_an_error_on_one_machine_ends_all_and_is_told_on_each(
    port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    machines = [_Machine(tmp_path, f'tell("bad", status=2) if rank else {_WAIT}', node, port) for node in (0, 1)]
    assert [machine.ended() for machine in machines] == [2, 2]
    assert capfd.readouterr().err.count("lmflow: error: rank 1 of 2 (host b): bad\n") == 2


def test_a_machine_that_does_not_come_is_named(port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert _Machine(tmp_path, "", 0, port).ended() == 1
    assert 2 <= time.monotonic() - began < 6
    assert "host b did not come within 2 s" in capfd.readouterr().err
    assert not (tmp_path / "starts-0").exists()
    other = _Machine(tmp_path, "", 1, port)
    other.ended()
    assert "host a did not answer at 127.0.0.1" in str(other.error)


def test_machines_with_different_lists_are_refused(
    port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    machines = [_Machine(tmp_path, "", n, port, hosts=(Host("a", 1), Host("b", n + 1))) for n in (0, 1)]
    assert [machine.ended() for machine in machines] == [2, 2]
    assert capfd.readouterr().err.count("host b has another --hostfile or --nnodes than the first") == 2


def test_two_machines_cannot_take_one_place(port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    machines = [_Machine(tmp_path, "time.sleep(4)", node, port) for node in (0, 1)]
    while not (tmp_path / "starts-1").exists():
        time.sleep(0.05)
    assert _Machine(tmp_path, "", 1, port).ended() == 2
    assert "host b has joined as number 1 of the job already" in capfd.readouterr().err
    assert [machine.ended() for machine in machines] == [0, 0]


def test_a_port_in_use_is_told(port: int, tmp_path: Path) -> None:
    with socket.create_server(("", port)):
        machine = _Machine(tmp_path, "", 0, port)
        machine.ended()
    assert isinstance(machine.error, RequestError)
    assert f"port {port} of this machine cannot be used" in str(machine.error)


class _Silent:
    """A machine that joins and then says no more, without ending its connection."""

    def __init__(self, port: int, job: Job) -> None:
        while True:
            try:
                self.channel = Channel(socket.create_connection(("127.0.0.1", port)))
                break
            except OSError:
                time.sleep(0.05)
        self.channel.send("join", node=1, name="b", count=1, digest=job.digest(), starts=0)


def test_a_silent_machine_is_lost_in_time_and_may_come_back(
    port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = f"if not resumed and rank == 0 and len((folder / 'starts-0').read_text().split()) < 2: {_WAIT}"
    first = _Machine(tmp_path, script, 0, port, max_restarts=1, join_timeout=10)
    silent = _Silent(port, _job(tmp_path, hosts=_TWO))
    while not (tmp_path / "starts-0").exists():
        time.sleep(0.02)
    began = time.monotonic()
    said = ""
    while "lost host b (rank 1 of 2): nothing was heard from it for 1 s" not in said:
        said += capfd.readouterr().err
        assert time.monotonic() - began < 6, said
        time.sleep(0.05)
    second = _Machine(tmp_path, script, 1, port, max_restarts=1, join_timeout=10)
    assert (first.ended(), second.ended()) == (0, 0)
    assert (_starts(tmp_path, 0), _starts(tmp_path, 1)) == (["anew", "anew"], ["anew"])
    silent.channel.close()


def test_without_restarts_a_lost_machine_ends_the_job(
    port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = _Machine(tmp_path, _WAIT, 0, port)
    silent = _Silent(port, _job(tmp_path, hosts=_TWO))
    assert first.ended() == 1
    assert "lmflow: error: lost host b (rank 1 of 2): nothing was heard from it for 1 s\n" in capfd.readouterr().err
    silent.channel.close()


@pytest.fixture
def silent_first(port: int) -> Iterator[threading.Thread]:
    """Be a first machine that starts the job and then says no more."""
    with socket.create_server(("127.0.0.1", port)) as listener:

        def serve() -> None:
            channel = Channel(listener.accept()[0])
            channel.send("start", first=1, size=2, port=1, address=None, restart=0, resume=False)
            time.sleep(5)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield thread


def test_the_others_notice_when_the_first_machine_is_silent(
    silent_first: threading.Thread, port: int, tmp_path: Path
) -> None:
    began = time.monotonic()
    machine = _Machine(tmp_path, _WAIT, 1, port)
    machine.ended()
    assert str(machine.error) == "lost host a, the first of the job: nothing was heard for 1 s"
    assert 1 <= time.monotonic() - began < 5


# -- the launcher itself is ended ---------------------------------------------------------------------------------

_LAUNCHER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_launching as t
sys.exit(t._run(Path(sys.argv[1]), t._ORPHANS))
"""
_ORPHANS = """
from lmflow_transformers.launching.ranks import end_with_launcher
end_with_launcher()
signal.signal(signal.SIGTERM, lambda *_: tell("stopped at step 3; go on with --resume"))
(folder / f"pid-{rank}").write_text(str(os.getpid()))
time.sleep(60)
"""


def _launched(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    program = _LAUNCHER.format(tests=str(Path(__file__).parent))
    launcher = subprocess.Popen([sys.executable, "-c", program, str(folder)], stderr=subprocess.PIPE, text=True)
    files = [folder / f"pid-{rank}" for rank in (0, 1)]
    while not all(file.exists() and file.read_text() for file in files):
        assert launcher.poll() is None
        time.sleep(0.02)
    return launcher, [int(file.read_text()) for file in files]


def _all_end(pids: list[int]) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if not any(_runs(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_no_process_outlives_its_launcher(tmp_path: Path) -> None:
    launcher, pids = _launched(tmp_path)
    launcher.kill()
    assert launcher.wait() == -signal.SIGKILL
    assert _all_end(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_signal_is_passed_on_and_its_end_is_told(tmp_path: Path) -> None:
    launcher, pids = _launched(tmp_path)
    launcher.terminate()
    _, said = launcher.communicate(timeout=10)
    assert launcher.returncode == 1
    assert said == "lmflow: error: stopped at step 3; go on with --resume\n"
    assert _all_end(pids)
