"""Pictures: functions from plain arrays to PNG, SVG or PDF files; needs the extra ``plots``."""
