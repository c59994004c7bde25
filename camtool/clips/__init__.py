"""Video: frames in, a clip with maps out, both as streams."""
