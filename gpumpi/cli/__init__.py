"""Doors: each parses, calls, prints, and gives an exit code."""
