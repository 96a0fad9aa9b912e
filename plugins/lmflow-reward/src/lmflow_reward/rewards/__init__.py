"""Rewards: verifiers, which follow from a rule, and what a reward model says."""
