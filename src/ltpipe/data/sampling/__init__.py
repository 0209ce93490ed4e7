"""Choosing rows of an index: how many images of each class, and which rows."""
