"""Pictures of an evaluation. Every function gives a matplotlib ``Figure``; ``figure.savefig("x.png")`` writes it."""
