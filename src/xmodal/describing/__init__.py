"""Cells in words: evidence measured in the cells, sentences that each name theirs, and decoders that word them."""
