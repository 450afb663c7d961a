"""A bank in PostgreSQL with pgvector."""
