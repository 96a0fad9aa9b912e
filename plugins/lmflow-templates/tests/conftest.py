"""Lets the tests here share their conversations and the texts written by hand."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
