"""What a crop becomes: networks, and the card that describes one. Importing this imports no torch."""
