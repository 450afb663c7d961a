"""Families of problems made to measure: each of one kind, with a dial for how hard it is (``--data families``)."""
