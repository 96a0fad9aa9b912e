"""Optimizers for LMFlow: Muon, Lion, GaLore, schedule-free, 8-bit and twenty more."""

__version__ = "0.1.0"
