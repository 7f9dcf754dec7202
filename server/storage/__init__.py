"""The source of truth: the ``Store`` protocol, its SQL implementation, the audit log and the API keys."""
