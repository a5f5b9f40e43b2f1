"""Reference models from public data: fetched, trained, scored, described and registered.  Run by ``scripts/models``."""
