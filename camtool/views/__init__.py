"""Display of class activation maps: colour tables, overlays, boxes and panels.

Nothing in here alters a map. Normalisation, colour and opacity are choices of the display, and
what was chosen is printed beside the colour bar. The modules are imported where they are used.
"""
