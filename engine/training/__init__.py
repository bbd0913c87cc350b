"""Training: one fit, from the dataset of a fold to the trained module."""
