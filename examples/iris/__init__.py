"""Three kinds of iris: the smallest example."""
