"""Recipes that train with Flax on JAX. Modules whose name starts with an underscore are what the recipes share."""
