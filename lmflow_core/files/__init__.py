"""Files: results that are whole or absent, caches, locks."""
