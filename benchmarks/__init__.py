"""Measurements run by hand, `python -m benchmarks.<name>` from the root. No stage and no test imports them."""
