"""How a network is judged: protocols, metrics, calibration, results and pictures."""
