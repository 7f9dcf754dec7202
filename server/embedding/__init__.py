"""Image files → pixels → batches → embeddings. No HTTP: a script can use this package directly."""
