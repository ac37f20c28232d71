"""Inference: from a model and data to draws of its parameters."""
