"""Looks at everything that a failover will need, and says what is wrong and what mends it."""
