"""Formulas that several methods share, as pure functions."""
