"""Distributions and emissions as torch objects, with parameters that know their constraints."""
