"""Tending: a bank kept good and small. ``plan`` says what should go and why, ``work`` does it and undoes it."""
