"""Texts about cell types: the Cell Ontology, the encoder that turns texts into vectors, and both in one bank."""
