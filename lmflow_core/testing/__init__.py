"""Fixtures for tests of LMFlow and of plugins for it."""
