"""What is known of a released checkpoint before it is downloaded: its published configuration, as data."""
