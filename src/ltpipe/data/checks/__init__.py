"""The rules that a manifest must keep, and their validation."""
