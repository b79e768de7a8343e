"""What the stack is made of: prediction tables, combiners, their selection, calibration, scores."""
