"""What the JAX recipes have in common."""
