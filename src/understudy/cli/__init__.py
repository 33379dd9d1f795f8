"""Thin: parse, call, print.  One module per verb, or per few that are alike."""
