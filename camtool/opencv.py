"""OpenCV, or a sentence that says how to get it on a server without a display."""

from __future__ import annotations

try:
    import cv2
except ImportError as error:
    raise ImportError(
        f"OpenCV can't be loaded ({error}). On a machine without a display: pip uninstall "
        "opencv-python, then pip install opencv-python-headless; or install the system's libGL "
        "and glib (Debian: libgl1 libglib2.0-0)",
        name=error.name,
    ) from error

__all__ = ["cv2"]
