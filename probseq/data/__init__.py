"""Data in: one door for every form of sequence, vocabularies, splits and example data."""
