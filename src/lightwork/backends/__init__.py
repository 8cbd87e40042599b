"""What does the work: one file or folder for each kind of worker. They never import each other."""
