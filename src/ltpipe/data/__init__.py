"""From raw data to a validated manifest; one row an image."""
