"""Models that see: the text as a model of its own, and a file of the eyes and what leads from them to the text."""
