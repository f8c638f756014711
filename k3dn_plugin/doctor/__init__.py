"""What is installed, missing or broken, and whether stores are still whole."""
