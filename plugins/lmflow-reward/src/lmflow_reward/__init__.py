"""Rewards for LMFlow: models that give a number for an answer, learned from pairs or scores, and verifiers."""

__version__ = "0.1.0"
