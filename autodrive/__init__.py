"""VLM-AutoDrive: post-training vision-language models so that they find and explain collisions in dashcam video."""

__version__ = "0.1.0"
