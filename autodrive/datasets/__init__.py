"""Sources of video: one adapter a file, manifests, splits, and the step from videos to clips."""
