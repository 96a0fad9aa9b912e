"""Rewards for LMFlow: verifiers, and models that learned from preferences."""

__version__ = "0.1.0"
