"""Judges: verifiers and process reward models, which say which of two responses to trust."""
