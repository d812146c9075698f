"""Tables of sweeps: published rows beside ours, with intervals, paired tests and a verdict; no model is loaded here."""
