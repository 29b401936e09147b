"""Checks on a data set: the rules of `crosstune check`, and duplicates between splits."""
