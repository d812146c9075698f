"""Measurements of our own parts against what one would do without them; each returns figures that JSON can hold."""
