"""Causal language models for LMFlow, opened, trained and run with transformers."""

__version__ = "0.1.0"

import os

# Read once by torch, at its first large buffer: huge pages make the first touch of memory several times cheaper.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
