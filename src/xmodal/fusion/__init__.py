"""Ways for modalities to meet: one file for each mechanism, behind f(latents, present) -> latent."""
