"""What is told when the tuners are imported."""

from __future__ import annotations

import subprocess
import sys


def test_libraries_give_users_no_advice() -> None:
    run = subprocess.run([sys.executable, "-c", "import lmflow_lora.tuner"], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")
