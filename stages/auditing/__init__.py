"""Suspicious labels and images: the noise of the labels, confident learning, statistics of pixels, a page to review."""
