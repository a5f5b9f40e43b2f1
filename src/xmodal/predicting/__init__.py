"""Predictions of new cells: aligned, judged, streamed, merged."""
