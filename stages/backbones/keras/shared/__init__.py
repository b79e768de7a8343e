"""What the Keras recipes have in common."""
