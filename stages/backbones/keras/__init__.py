"""Recipes that train with Keras. Modules whose name starts with an underscore are what the recipes share."""

from stages.backbones.keras import _session as _session  # before any other module imports TensorFlow
