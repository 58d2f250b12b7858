"""Agent: in front of another server, measuring its model as the gates want it."""
