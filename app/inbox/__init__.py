"""The record of every event, and the scripts that change it."""
