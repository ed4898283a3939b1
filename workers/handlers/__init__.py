"""Your handlers: every module in this folder is imported by the workers."""
