"""Decoding beyond a model's context: attention sinks and a window of the last tokens."""

__version__ = "0.1.0"
