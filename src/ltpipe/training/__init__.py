"""The training loop for every method. It contains no method's name and imports neither Kedro nor DVC."""
