"""What a run tells its loggers, and Weights & Biases in particular; knows run folders and records, no model."""
