"""A small network that makes infrared pictures of visible ones: how it learns, how good it is, how it is used."""
