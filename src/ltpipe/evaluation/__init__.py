"""Turn predictions into metrics, verdicts and a report. Uses numpy and pandas, never torch."""
