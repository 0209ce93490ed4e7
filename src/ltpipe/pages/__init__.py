"""Files that are generated from the code and the benchmarks."""
