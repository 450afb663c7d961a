"""The command line; ``tacit.cli.main`` is its entry point."""
