"""The versions of the schema, oldest first. A released one is never edited."""
