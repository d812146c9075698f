"""What a training would take, counted before anything is downloaded: pure functions of a student without weights."""
