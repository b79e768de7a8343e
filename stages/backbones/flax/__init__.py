"""Recipes that train with Flax on JAX, a folder each; `shared` is what they have in common."""
