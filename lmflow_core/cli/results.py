"""Results for programs."""

from __future__ import annotations

import json
from typing import Any

from lmflow_core.report import console


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    console.show(json.dumps(value, indent=2, ensure_ascii=False))
