"""Worker processes: starting them, talking to them, knowing how they ended."""
