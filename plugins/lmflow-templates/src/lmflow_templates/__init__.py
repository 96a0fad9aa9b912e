"""Conversation templates for LMFlow, written as data."""

__version__ = "0.1.0"
