"""Training: LightningModules that decide when, and the losses, schedules and loops that decide what."""
