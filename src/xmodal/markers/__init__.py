"""Marker features of groups of cells: tests on counts, the order of imputed values, tables and pictures."""
