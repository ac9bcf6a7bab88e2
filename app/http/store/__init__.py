"""SQL statements for stored answers and request rates."""
