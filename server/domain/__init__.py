"""Types, errors and validation of the gallery search: no I/O and no framework."""
