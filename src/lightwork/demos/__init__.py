"""Examples that run as they stand; they use public names only."""
