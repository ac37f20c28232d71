"""Sequence models: mathematics on tensors, without labels, fitting or user interface."""
