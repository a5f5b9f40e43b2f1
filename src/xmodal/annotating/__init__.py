"""What cells are called: candidates, calibrated decisions, votes of clusters, and the genes that made each call."""
