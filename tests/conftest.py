"""For every test: what it takes on the clock never decides whether it passes."""

from hypothesis import settings

settings.register_profile("camtool", deadline=None)
settings.load_profile("camtool")
