"""Many pictures through the one forward path, whoever does the work."""
