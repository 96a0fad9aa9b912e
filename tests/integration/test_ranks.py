"""A job on two processes does what it does on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_two_ranks_equal_one_process(tiny_model: Path, tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"hello {n}"}, {"role": "assistant", "content": "world " * (n + 1)}]}
        for n in range(8)
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    flags = [
        "--model",
        str(tiny_model),
        "--dataset",
        str(data),
        "--lr",
        "1e-2",
        "--epochs",
        "2",
        "--logging-steps",
        "1",
    ]
    alone = [sys.executable, "-m", "lmflow_core", "finetune", *flags, "--output", str(tmp_path / "one")]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    together = [
        *launcher,
        "-m",
        "lmflow_core",
        "finetune",
        *flags,
        "--batch-size",
        "4",
        "--output",
        str(tmp_path / "two"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for command in ([*alone, "--batch-size", "8"], together):
        finished = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert finished.returncode == 0, finished.stderr
    one, two = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "two"))
    assert one["options"]["engine"] == "local"
    assert two["options"]["engine"] == "torchrun"
    assert two["tokens"] == one["tokens"]
    assert [step for step, _ in two["losses"]] == [1, 2]
    assert [loss for _, loss in two["losses"]] == pytest.approx([loss for _, loss in one["losses"]], abs=1e-4)
