"""Where images come from: one file a source, each with a Config block, a NOTICE text and a fetch function."""
