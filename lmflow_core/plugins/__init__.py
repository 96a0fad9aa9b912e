"""Plugins: found, loaded whole or left out, and reached by name."""
