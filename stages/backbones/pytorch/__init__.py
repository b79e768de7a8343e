"""Recipes that train with PyTorch, a folder each; `shared` is what they have in common."""
