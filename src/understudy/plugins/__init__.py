"""Programs that are copied to the check points: one file each, nothing but Python 3.9."""
