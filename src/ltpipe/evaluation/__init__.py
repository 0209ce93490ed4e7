"""From predictions to numbers, verdicts and a report; numpy and pandas, no torch."""
