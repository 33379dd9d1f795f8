"""The way to the other node's agent: a command, over SSH or here, that asks one thing and ends."""
