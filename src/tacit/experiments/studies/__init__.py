"""Studies: what predicts a good memory, and where memories carry over."""
