"""Widgets: they draw, and use neither the engine nor screens."""
