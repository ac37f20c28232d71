"""Comparing models on the same data."""
