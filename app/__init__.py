"""Jobhook: receives JobsiteOn's webhooks, records them durably and has RQ workers process them."""

__version__ = "0.1.0"
