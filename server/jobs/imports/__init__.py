"""Bulk imports into a gallery: archives and folders of crops, files of precomputed vectors."""
