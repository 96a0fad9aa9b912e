"""Reward-ranked fine-tuning for LMFlow: a model learns from the best of its own answers."""

__version__ = "0.1.0"
