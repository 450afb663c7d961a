"""Runs and their figures: the runner and its folder, scoring, metrics, plots, the report."""
