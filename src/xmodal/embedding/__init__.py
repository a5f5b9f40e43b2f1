"""One embedding of cells with any of a checkpoint's modalities, their clusters, and denoised values."""
