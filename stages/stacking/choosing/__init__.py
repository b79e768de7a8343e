"""What `stack` decides, on out-of-fold rows alone: which combiner, and how it answers for new images."""
