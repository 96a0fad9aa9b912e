"""Reward models for LMFlow: a number for an answer, learned from pairs or scores."""

__version__ = "0.1.0"
