"""Predictions against truth and controls: scores, what they mean, and the folder of results."""
