"""Learning from preferences: pairs of answers (DPO and its kin) and answers with a verdict (KTO)."""

__version__ = "0.1.0"
