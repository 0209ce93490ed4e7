"""Metrics that need nothing but predictions and labels."""
