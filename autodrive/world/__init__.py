"""A procedurally rendered dashcam world: physics first, labels and truth from the same simulation."""
