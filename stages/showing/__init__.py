"""What steps show and cannot change: progress, errors as one line, the machine. No stage depends on it."""
