"""The outside world: one folder per family, a dict literal in its __init__ lists the members."""
