"""Parts of which models are made: states of cells, posterior groups, depths, direct networks, blends."""
