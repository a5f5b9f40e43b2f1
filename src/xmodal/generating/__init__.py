"""Cells from a text."""
