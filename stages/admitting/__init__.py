"""Predictions made elsewhere: what is handed out to whoever makes them, how their file is read, and what is checked."""
