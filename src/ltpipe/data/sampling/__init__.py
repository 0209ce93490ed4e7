"""Rows of an index, and how many of each class."""
