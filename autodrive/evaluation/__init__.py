"""Reading replies and scoring them: strings and arrays in, numbers out."""
