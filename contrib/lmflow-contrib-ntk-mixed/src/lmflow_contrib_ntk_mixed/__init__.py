"""Position scaling by mixed NTK: every frequency slowed, the slow ones most."""

__version__ = "0.1.0"
