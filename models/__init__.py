"""Networks that embed crops, and the model card that describes one. Importing this package does not import torch."""
