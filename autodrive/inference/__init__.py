"""Asking a student: any clips with any questions, a whole split, a whole video. Knows of no training."""
