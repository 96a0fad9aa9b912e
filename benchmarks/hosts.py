"""Seconds until the loss of a process or machine is told, and until the job steps on behind its last checkpoint.

    python benchmarks/hosts.py
    python benchmarks/hosts.py --host-timeout 30

A tiny Llama trains on two machines, which are network namespaces of this Linux (so the command is the administrator's).
A machine that is killed is started again, and a cable put back, as soon as the loss is told.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lmflow_core.report.console import table
from lmflow_core.testing.hosts import HostNetwork, hosts
from lmflow_core.testing.tiny import make_tiny_model

_LOSSES = {
    "a process is killed": ("rank", 1),
    "a machine's launcher is killed": ("launcher", 1),
    "the first machine's launcher is killed": ("launcher", 0),
    "a machine's cable is pulled": ("cable", 1),
    "the first machine's cable is pulled": ("cable", 0),
}
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def _command(folder: Path, network: HostNetwork, host_timeout: float) -> list[str]:
    make_tiny_model(folder / "model")
    rows = [{"text": f"hello world {n}"} for n in range(64)]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "hosts").write_text("".join(f"{address} slots=1\n" for address in network.addresses))
    flags = {"model": "model", "dataset": "data.jsonl", "hostfile": "hosts", "output": "out"}
    paths = [text for name, place in flags.items() for text in (f"--{name}", str(folder / place))]
    times = ["--host-timeout", str(host_timeout), "--join-timeout", "120", "--max-restarts", "1"]
    steps = ["--epochs", "20", "--batch-size", "4", "--save-steps", "20", "--logging-steps", "1"]
    return [sys.executable, "-m", "lmflow_core", "finetune", *paths, *times, *steps]


def _wait(log: Path, text: str, begin: int = 0) -> float:
    """Wait until a log says something behind a place; return when."""
    while text not in log.read_text(encoding="utf-8")[begin:]:
        time.sleep(0.01)
    return time.monotonic()


def _kill_process_of(launcher: subprocess.Popen[Any]) -> None:
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[0]), 9)


def measure(folder: Path, network: HostNetwork, what: str, host: int, host_timeout: float) -> tuple[float, float]:
    """Return the seconds until a loss is told, and from then until the next step of the run."""
    command = _command(folder, network, host_timeout)
    logs = [folder / f"{n}.log" for n in (0, 1)]
    launchers = [network.start(n, command, log, _ENVIRONMENT) for n, log in enumerate(logs)]
    while not (folder / "out" / "checkpoints" / "checkpoint-20").exists():
        time.sleep(0.01)
    begin, event = len(logs[0].read_text()), time.monotonic()
    if what == "rank":
        _kill_process_of(launchers[host])
    elif what == "cable":
        network.cut(host)
    else:
        launchers[host].kill()
        launchers[host].wait()
    told = _wait(logs[1 - host], "was killed" if what == "rank" else "lost host")
    if what == "cable":
        network.mend(host)
    elif what == "launcher":
        launchers[host] = network.start(host, command, logs[host], _ENVIRONMENT)
    _wait(logs[0], "going on from", begin)
    begin = logs[0].read_text().index("going on from", begin)
    stepped = _wait(logs[0], "step ", begin)
    assert [launcher.wait() for launcher in launchers] == [0, 0], logs[0].read_text()
    return told - event, stepped - told


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host-timeout", type=float, default=5.0)
    timeout = parser.parse_args().host_timeout
    rows: list[tuple[str, str, str]] = []
    for name, (what, host) in _LOSSES.items():
        with hosts(2) as network, tempfile.TemporaryDirectory() as folder:
            if isinstance(network, str):
                sys.exit(network)
            told, stepped = measure(Path(folder), network, what, host, timeout)
        rows.append((name, f"{told:.1f}", f"{stepped:.1f}"))
    print(table(("", "told after s", "steps on after s"), rows))


if __name__ == "__main__":
    main()
