"""What each host of a pair must have, as values; and what puts it there."""
