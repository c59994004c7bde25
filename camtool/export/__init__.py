"""Networks whose maps are outputs of a graph that runs without camtool."""

from camtool.export.graph import ExportError, MapGraph
from camtool.export.write import Exported, export_model

__all__ = ["ExportError", "Exported", "MapGraph", "export_model"]
