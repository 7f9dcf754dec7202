"""vireid: find the same person across visible and infrared cameras."""
