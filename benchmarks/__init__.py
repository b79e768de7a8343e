"""Measurements: `python -m benchmarks` for docs/benchmarks.md, `python -m benchmarks.<name>` for one by hand."""
