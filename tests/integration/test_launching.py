"""``lmflow finetune`` starts the processes of a job itself, and ends as one program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

_LMFLOW = [sys.executable, "-m", "lmflow_core"]


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


def _run(arguments: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    command = [*_LMFLOW, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=_environment(**more), timeout=200)


def _record(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return record


def _losses(folder: Path) -> list[float]:
    return [loss for _, loss in _record(folder)["losses"]]


@pytest.fixture(scope="module")
def run_file(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run file of 24 steps with checkpoints, for one process with four rows a step or two with two."""
    folder = tmp_path_factory.mktemp("launching")
    rows = [
        {"messages": [{"role": "user", "content": f"hello {n}"}, {"role": "assistant", "content": "world " * (n + 1)}]}
        for n in range(8)
    ]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    values = {"model": str(tiny_model), "dataset": str(folder / "data.jsonl"), "tuner": "full", "lr": 1e-2}
    values |= {"epochs": 12, "logging_steps": 1, "save_steps": 4, "batch_size": 4}
    (folder / "run.yaml").write_text(json.dumps(values), encoding="utf-8")
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def undisturbed(run_file: Path) -> Path:
    """Return the result of one process."""
    folder = run_file.parent / "one"
    finished = _run(["finetune", str(run_file), "--engine", "local", "--output", str(folder)])
    assert finished.returncode == 0, finished.stderr
    return folder


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def _children(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def _of_rank(process: int, rank: int) -> int:
    """Return the process number of a rank among those that a launcher started."""
    marks = {child: Path(f"/proc/{child}/environ").read_bytes().split(b"\0") for child in _children(process)}
    return next(child for child, variables in marks.items() if f"RANK={rank}".encode() in variables)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_two_processes_equal_one_though_one_of_them_was_killed(run_file: Path, undisturbed: Path) -> None:
    values = {**json.loads(run_file.read_text()), "batch_size": 2, "nproc": 2, "max_restarts": 1}
    file, output = run_file.parent / "two.yaml", run_file.parent / "two"
    file.write_text(json.dumps(values), encoding="utf-8")
    command = [*_LMFLOW, "finetune", str(file), "--json", "--output", str(output)]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment())
    while not (output / "checkpoints" / "checkpoint-8").exists():
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.01)
    os.kill(_of_rank(launcher.pid, 1), signal.SIGKILL)
    shown, said = launcher.communicate(timeout=200)
    assert launcher.returncode == 0, said
    assert said.count("lmflow: rank 1 of 2 was killed by SIGKILL") == 1
    assert "starting again (1 of 1 restarts), from the last checkpoint" in said
    assert "Traceback" not in said
    record = json.loads(shown)
    assert (record["options"]["engine"], record["options"]["nproc"]) == ("torchrun", "2")
    assert record["tokens"] == _record(undisturbed)["tokens"]
    assert [step for step, _ in record["losses"]] == list(range(1, 25))
    assert _losses(output) == pytest.approx(_losses(undisturbed), abs=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_job_that_was_killed_again_and_again_ends_with_the_same_weights(run_file: Path, tmp_path: Path) -> None:
    flags = ["finetune", str(run_file), "--batch-size", "2", "--nproc", "2", "--max-restarts", "3"]
    assert _run([*flags, "--output", str(tmp_path / "whole")]).returncode == 0
    output = tmp_path / "killed"
    launcher = subprocess.Popen([*_LMFLOW, *flags, "--output", str(output)], env=_environment())
    for step, rank in ((4, 0), (12, 1), (16, 0)):
        while not (output / "checkpoints" / f"checkpoint-{step}").exists():
            assert launcher.poll() is None
            time.sleep(0.005)
        os.kill(_of_rank(launcher.pid, rank), signal.SIGKILL)
        time.sleep(0.5)
    assert launcher.wait(timeout=200) == 0
    whole, killed = _weights(tmp_path / "whole"), _weights(output)
    assert all(bool((whole[name] == killed[name]).all()) for name in whole)
    assert _losses(output) == _losses(tmp_path / "whole")


@pytest.mark.slow
def test_an_interruption_stops_all_with_a_checkpoint(run_file: Path, undisturbed: Path, tmp_path: Path) -> None:
    flags = ["finetune", str(run_file), "--batch-size", "2", "--nproc", "2", "--output", str(tmp_path / "out")]
    launcher = subprocess.Popen([*_LMFLOW, *flags], stderr=subprocess.PIPE, text=True, env=_environment())
    while not (tmp_path / "out" / "checkpoints" / "checkpoint-4").exists():
        assert launcher.poll() is None
        time.sleep(0.005)
    launcher.send_signal(signal.SIGINT)
    _, said = launcher.communicate(timeout=100)
    assert launcher.returncode == 1, said
    assert said.count("lmflow: error: stopped at step ") == 1
    assert said.count("lmflow: stopping after this step") == 1
    finished = _run([*flags, "--resume", "--nproc", "auto", "--batch-size", "4", "--resume-anyway"])
    assert finished.returncode == 0, finished.stderr
    assert _losses(tmp_path / "out") == pytest.approx(_losses(undisturbed), abs=1e-4)


@pytest.mark.slow
def test_tasks_of_slurm_are_one_job(run_file: Path, undisturbed: Path) -> None:
    output = run_file.parent / "slurm"
    shared = {"SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_ID": str(os.getpid())}
    tasks = [
        subprocess.Popen(
            [*_LMFLOW, "finetune", str(run_file), "--batch-size", "2", "--output", str(output)],
            env=_environment(**shared, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), SLURM_NODEID="0"),
        )
        for rank in (0, 1)
    ]
    assert [task.wait(timeout=200) for task in tasks] == [0, 0]
    assert _losses(output) == pytest.approx(_losses(undisturbed), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torchrun", "deepspeed"])
def test_engines_start_their_processes(engine: str, run_file: Path, undisturbed: Path, tmp_path: Path) -> None:
    if engine == "deepspeed":
        pytest.importorskip("deepspeed")
    flags = ["--engine", engine, "--nproc", "2", "--batch-size", "2", "--output", str(tmp_path / "out")]
    finished = _run(["finetune", str(run_file), *flags])
    assert finished.returncode == 0, finished.stderr
    assert _losses(tmp_path / "out") == pytest.approx(_losses(undisturbed), abs=1e-4)


def test_an_error_of_all_processes_comes_out_once(run_file: Path, tmp_path: Path) -> None:
    flags = ["--model", str(tmp_path / "nowhere"), "--nproc", "2", "--output", str(tmp_path / "out")]
    finished = _run(["finetune", str(run_file), *flags])
    assert finished.returncode == 2
    assert finished.stderr.count("lmflow: error:") == 1
    assert "nowhere" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("flags", "more", "told"),
    [
        (["--engine", "local", "--nproc", "2"], {}, "--nproc belongs to engine "),
        (["--nproc", "none-at-all"], {}, "--nproc 'none-at-all' must be a number of processes, auto or gpu"),
        (["--nproc", "2"], {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "x"}, "a launcher has started this one"),
        (["--hostfile", "HOSTS"], {}, "HOSTS, line 2: 'here slot=1' must look like 'HOST slots=N'"),
    ],
)
def test_what_cannot_be_started_is_refused_at_once(
    flags: list[str], more: dict[str, str], told: str, run_file: Path, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("there slots=1\nhere slot=1\n")
    flags = [str(hosts) if flag == "HOSTS" else flag for flag in flags]
    finished = _run(["finetune", str(run_file), *flags, "--output", str(tmp_path / "out")], **more)
    assert finished.returncode == 2
    assert told.replace("HOSTS", str(hosts)) in finished.stderr
    assert finished.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_launcher_that_is_killed_leaves_nothing_running(run_file: Path, tmp_path: Path) -> None:
    flags = ["--nproc", "2", "--output", str(tmp_path / "out")]
    launcher = subprocess.Popen(
        [*_LMFLOW, "finetune", str(run_file), *flags], env=_environment(), stderr=subprocess.DEVNULL
    )
    while len(_children(launcher.pid)) < 2:
        time.sleep(0.01)
    children = _children(launcher.pid)
    launcher.kill()
    launcher.wait()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() and not _is_zombie(child) for child in children):
        assert time.monotonic() < end, "a process outlives its launcher"
        time.sleep(0.05)


def _is_zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
