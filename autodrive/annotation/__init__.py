"""Generators of supervision: each turns what is known of a clip into annotations."""
