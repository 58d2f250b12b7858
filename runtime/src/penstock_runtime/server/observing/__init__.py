"""What is told of single requests: a line in the log, a trace."""
