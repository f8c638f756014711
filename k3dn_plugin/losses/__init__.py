"""What training minimizes: each a registered class in a file of its own kind."""
