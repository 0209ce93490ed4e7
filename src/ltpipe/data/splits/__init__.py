"""How a manifest is drawn from an index: one file a kind, each with a Config block and a draw function."""
