"""Forms of data rows for LMFlow: its own nine types, alpaca, sharegpt, messages, prompts, preferences and verdicts."""

__version__ = "0.1.0"
