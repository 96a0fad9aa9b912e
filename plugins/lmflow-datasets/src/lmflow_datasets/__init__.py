"""Forms of data rows for LMFlow: its own types, alpaca, sharegpt and messages."""

__version__ = "0.1.0"
