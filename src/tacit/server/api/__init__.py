"""The HTTP routes, their schemas, errors and access rights."""
