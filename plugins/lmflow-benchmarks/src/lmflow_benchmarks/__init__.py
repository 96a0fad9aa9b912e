"""Benchmarks for LMFlow: questions of your own, and the tasks of lm-evaluation-harness, over its models."""

__version__ = "0.1.0"
