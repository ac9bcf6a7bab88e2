"""SQL statements about customers, their payment methods, invoices, access and failures."""
