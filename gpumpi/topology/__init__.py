"""Facts about hosts: what is there, read and never changed."""
