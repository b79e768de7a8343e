"""What the PyTorch recipes have in common."""
