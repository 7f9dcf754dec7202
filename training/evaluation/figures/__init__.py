"""Figures of an evaluation. Every function returns a matplotlib ``Figure``; ``figure.savefig("x.png")`` writes it."""
