"""Many pictures: streaming them through the one forward path, and keeping what comes out."""
