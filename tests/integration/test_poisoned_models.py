"""The short form of the campaign of poisoned models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_short_campaign_of_poisoned_models_loses_nothing() -> None:
    program = Path(__file__).parents[2] / "dev" / "campaigns" / "poisoned_models.py"
    told = subprocess.run([sys.executable, program, "--cases", "40"], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.splitlines()[-1].split() == ["all", "40", "40", "0"]
