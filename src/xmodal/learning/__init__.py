"""The loop, the checkpoint, and what the training cells looked like."""
