"""How the networks learn and how they are judged. Never imports ``server``."""
