"""Heads for one's own classes, and what heads are worth."""
