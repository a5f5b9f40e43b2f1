"""xmodal: cross-modal single-cell modelling that core facilities run."""

__version__ = "0.1.0"
