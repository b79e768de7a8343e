"""Recipes that train with Keras. Modules whose name starts with an underscore are what the recipes share."""
