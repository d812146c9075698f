"""Processes that work on one run together: how they are started and watched, and what they tell each other."""
