"""Video in: which frames to take, how to decode them, which files can be used, and how to cut them into windows."""
