"""The frozen model: loading, the forward pass over a key/value cache, and compiled passes of small models."""
