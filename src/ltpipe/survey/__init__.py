"""A look at a user's pictures before anything is trained: what is there, what to choose, what it will cost."""
