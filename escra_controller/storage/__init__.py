"""What the controller keeps on disk: the values, the sqlite file, and what happens when that fails."""
