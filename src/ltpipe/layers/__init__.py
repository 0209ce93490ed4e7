"""Layers from which backbones and methods build networks."""
