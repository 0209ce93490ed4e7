"""Stage `cluster`: attributes for images whose attributes nobody labelled."""
