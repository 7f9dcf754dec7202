"""HTTP API: routes translate requests to calls of the other packages, and their results to responses."""
