"""LISA for LMFlow: full-parameter training of a few layers at a time."""

__version__ = "0.1.0"
