"""Models.  A new one is a file here (or in any package) and one entry-point line in the group ``xmodal.models``."""
