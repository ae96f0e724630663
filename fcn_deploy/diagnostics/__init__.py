"""What a file is, what this machine is, and what is installed on it."""
