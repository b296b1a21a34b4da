"""What people read: the banner and the plan."""
