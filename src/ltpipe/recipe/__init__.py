"""What is trained: a run with its method, and the schedule of its training."""
