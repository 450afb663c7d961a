"""Tasks: how problems of a kind are asked and read, and where problems come from."""
