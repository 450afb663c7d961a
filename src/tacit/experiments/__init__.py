"""Runs, comparisons and studies: their folders, scoring, reports, and plans of what they would need."""
