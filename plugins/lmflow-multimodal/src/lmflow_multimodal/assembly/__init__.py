"""A model that sees, assembled of a language model and a vision tower."""
