"""Where images come from and what they are once decoded: sources, the dataset on disk, folds, array types."""
