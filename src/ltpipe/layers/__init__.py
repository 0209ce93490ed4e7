"""Layers that backbones and methods build networks from."""
