"""Evaluation of networks: protocols, metrics, calibration, results and figures."""
