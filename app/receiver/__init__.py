"""The HTTP side: from a request to a recorded delivery and its answer."""
