"""The short form of ``dev/campaigns/full_disk.py``, which counts and tells what is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_CAMPAIGN = Path(__file__).parents[2] / "dev" / "campaigns" / "full_disk.py"


@pytest.mark.slow
def test_a_few_cases_of_the_campaign() -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        str(_CAMPAIGN),
        "--cases",
        "5",
        "--seed",
        "5",
        "--kind",
        "disk full",
        "--kind",
        "two at once",
    ]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "all" in finished.stdout
