"""Benchmarks for LMFlow: the tasks of lm-evaluation-harness over its models, likelihoods and answers."""

__version__ = "0.1.0"
