"""Cells whose truth is known."""
