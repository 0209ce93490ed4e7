"""What a manifest must be, and its validation."""
