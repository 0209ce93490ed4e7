"""Metrics from predictions alone."""
