"""What a run lets people see of it."""
