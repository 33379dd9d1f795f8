"""A class of data that MariaDB's own replication copies: see copy.py, and settings.py for how it is told.

Nothing is imported here: PyMySQL is needed only where this kind is configured.
"""
