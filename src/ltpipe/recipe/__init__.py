"""One row of a table: the run with its method, and the schedule it trains by."""
