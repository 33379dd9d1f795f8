"""A whole pair on this machine's loopback: PBXs that answer, a caller that calls by name."""
