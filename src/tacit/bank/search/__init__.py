"""Search of keys: exact in memory, compressed above that."""
