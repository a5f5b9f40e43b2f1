"""What is computed over sparse counts without making them dense: rows, the first layer, sums over links, and losses."""
