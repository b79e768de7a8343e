"""Recipes that train with PyTorch. Modules whose name starts with an underscore are what the recipes share."""
