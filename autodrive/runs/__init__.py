"""Run folders: how they are laid out, opened, continued, and what they say about themselves."""
