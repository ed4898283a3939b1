"""Reaching Redis, and making what is written there durable."""
