"""The exported model: how it is written, and how it answers."""
