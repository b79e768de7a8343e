"""Reviewed decisions about labels: a file of them in git, what they make of the rows of the index."""
