"""Values and rules of roles, seats, statuses and money. They do no I/O and need only the standard library."""
