"""Fault injection with an oracle: real processes are struck while deliveries stream in, and it is counted
what was lost or done twice. See README.md beside this file.
"""
