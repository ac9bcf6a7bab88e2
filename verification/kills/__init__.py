"""Processes killed with SIGKILL at every named point of an operation, and of deliveries."""
