"""The one training loop; contains no method's name and knows neither Kedro nor DVC."""
