"""Video: frames in, a clip with maps out, both as streams."""

from camtool.clips.explain import Clip, Moment, explain_clip
from camtool.clips.frames import is_clip

__all__ = ["Clip", "Moment", "explain_clip", "is_clip"]
