"""Scores and calibration of probabilistic forecasts, on arrays."""
