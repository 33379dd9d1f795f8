"""A class of data that MariaDB's own replication copies: see replica.py; settings.py is how it is told.

Nothing is imported here: PyMySQL is needed only where this kind is configured.
"""
