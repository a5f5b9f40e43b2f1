"""The HTML page, its pictures, and the sections for MultiQC."""
