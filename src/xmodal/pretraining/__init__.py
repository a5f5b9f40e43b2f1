"""Pretraining of the cell encoder on cells without labels, of any number of files."""
