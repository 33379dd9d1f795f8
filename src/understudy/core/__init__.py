"""The deciding core: what should happen next, and why.

Nothing in this package performs I/O, reads a clock, logs or draws random numbers.  Cron, the daemon and
the simulator all call the same `decide`, so what the simulator proves is what production does.
"""
