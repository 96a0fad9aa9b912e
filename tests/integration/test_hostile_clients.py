"""A short form of the campaign of hostile clients."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_CAMPAIGN = Path(__file__).parents[2] / "dev" / "campaigns" / "hostile_clients.py"


def test_hostile_clients_lose_nothing() -> None:
    finished = subprocess.run([sys.executable, str(_CAMPAIGN), "--cases", "40"], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
