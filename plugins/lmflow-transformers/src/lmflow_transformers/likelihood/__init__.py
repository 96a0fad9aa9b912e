"""How likely a network finds tokens, of labelled positions alone: cross-entropy and log-probabilities."""
