"""Contracts: what plugins declare, and what the targets of their specs must do."""
