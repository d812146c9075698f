"""Clip trees: one video and the annotations that branch from it, as text, as tokens and as packed rows."""
