"""Deliberate flaws, and whether the tests notice them: `make mutants`.

Line coverage tells what has run, not what would be noticed if it were wrong. Each flaw here breaks a promise
in the way in which somebody might break it by a careless change; a test that has to notice it is named.
"""
