"""What `evaluate` says of the chosen stack. Nothing here knows what anything cost, so that no clock reruns it."""
