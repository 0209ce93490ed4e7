"""Training methods: one file a method, with the paper in its docstring, a Config block and a Method class."""
