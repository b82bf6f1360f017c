"""Pictures: functions from plain arrays to PNG, SVG or PDF files; needs the extra ``plots``."""

from distsgd.lessons.pictures.function_curve import draw_curve

__all__ = ["draw_curve"]
