"""What a student is asked to do: the words of each task, its targets, how replies are read and how they are scored."""
