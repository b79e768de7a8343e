"""Recipes that train with Keras, a folder each; `shared` is what they have in common."""

from stages.backbones.keras.shared import session as session  # before any other module imports TensorFlow
