"""A run that is killed again and again, at any moment, ends with the weights of one that never was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Runs in a process of its own: everything is imported once, and each child that is forked trains until it is killed.
_SCRIPT = r"""
import dataclasses, json, os, random, shutil, signal, sys, time
from pathlib import Path

import torch
from lmflow_core.api import IGNORE, TrainingSettings
from lmflow_core.testing.jobs import make_job, single
from lmflow_lisa.options import LisaOptions
from lmflow_lisa.tuner import LisaTuner
from lmflow_lora.options import LoraOptions
from lmflow_lora.tuner import LoraTuner
from lmflow_transformers.training.sft import SftObjective
from lmflow_transformers.tuners import FullTuner

folder, work, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
TUNERS = {
    "full": FullTuner,
    "lora": lambda: LoraTuner(LoraOptions(lora_r=4)),
    "lisa": lambda: LisaTuner(LisaOptions(lisa_interval_steps=3, lisa_activated_layers=1)),
}
ROWS = [single(list(range(n, n + 12)), [IGNORE] * 4 + list(range(n + 4, n + 12))) for n in range(3, 99)]


def train(name, place):
    torch.set_num_threads(1)
    checkpoints = place / "checkpoints"
    settings = TrainingSettings(lr=1e-3, batch_size=4, epochs=9, save_steps=2, seed=5)
    job = make_job(folder, checkpoints, settings, ROWS, tuner=TUNERS[name]())
    begun = checkpoints.is_dir() and any(entry.name.startswith("checkpoint-") for entry in checkpoints.iterdir())
    SftObjective().train(dataclasses.replace(job, resume=begun))
    torch.save(job.model.network.state_dict(), place / "final.pt")


def child(name, place):
    process = os.fork()
    if process == 0:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            train(name, place)
        os._exit(0)
    return process


def finished(process, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(process, os.WNOHANG)[0]:
            return True
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return False


def same_weights(broken, whole):
    ours, theirs = (torch.load(place / "final.pt", weights_only=True) for place in (broken, whole))
    return all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


generator = random.Random(0)
report = {}
for name in TUNERS:
    whole, broken = work / name / "whole", work / name / "broken"
    whole.mkdir(parents=True), broken.mkdir(parents=True)
    started = time.monotonic()
    os.waitpid(child(name, whole), 0)
    whole_seconds = time.monotonic() - started
    killed, equal = 0, True
    while killed < kills:
        if not finished(child(name, broken), generator.uniform(0.08, 0.2) * whole_seconds):
            killed += 1
            continue
        equal &= same_weights(broken, whole)
        shutil.rmtree(broken)
        broken.mkdir()
    if not (broken / "final.pt").exists():
        os.waitpid(child(name, broken), 0)
    report[name] = {"killed": killed, "equal": equal and same_weights(broken, whole)}
print(json.dumps(report))
"""


@pytest.mark.slow
def test_killed_runs_end_as_whole_ones(tiny_model: Path, tmp_path: Path) -> None:
    kills = 20
    command = [sys.executable, "-c", _SCRIPT, str(tiny_model), str(tmp_path), str(kills)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout.splitlines()[-1])
    assert set(report) == {"full", "lora", "lisa"}
    for name, outcome in report.items():
        assert outcome["equal"], name
        assert outcome["killed"] == kills, report
