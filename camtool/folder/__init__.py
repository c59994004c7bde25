"""A folder of any size: discovery, journal, tables, and a run that continues where it stopped."""
