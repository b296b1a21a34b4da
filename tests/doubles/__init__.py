"""What stands for hardware that is not there. Never part of the package."""
