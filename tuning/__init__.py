"""Hyper-parameter search: `python -m tuning <backbone>` tries values from a space in params.yaml. See docs/tuning.md.

It stands beside the pipeline: it reads what `split` wrote, trains on training images alone, and writes only under
`data/tuning`. No stage depends on it.
"""
