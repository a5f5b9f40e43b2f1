"""Cells: reading, checking, joining, splitting, aligning, and as tensors."""
