"""What steps show and cannot change: progress, mistakes as one line and early, the machine. No stage depends on it."""
