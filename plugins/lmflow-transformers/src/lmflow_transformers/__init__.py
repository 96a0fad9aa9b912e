"""Causal language models for LMFlow, opened, trained and run with transformers."""

__version__ = "0.1.0"
