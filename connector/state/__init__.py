"""What a project remembers: runs and chunks in a database, snapshots in files."""
