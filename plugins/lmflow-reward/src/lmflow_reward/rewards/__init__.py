"""Verifiers: rewards that follow from a rule, without any model."""
