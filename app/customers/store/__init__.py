"""SQL statements about customers, payment methods, invoices, access, failures."""
