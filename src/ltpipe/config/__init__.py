"""Parameter blocks and the files they come from."""
