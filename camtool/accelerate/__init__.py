"""Everything that only makes a network faster."""
