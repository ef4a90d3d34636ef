"""Matplotlib figures of plain arrays and numbers: overlays, learning curves, box plots."""
