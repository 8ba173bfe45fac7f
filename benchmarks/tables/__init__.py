"""The published tables of what the benchmarks found, each made from its CSV alone; a file each."""
