"""Figures, pictures and pages of runs and comparisons."""
