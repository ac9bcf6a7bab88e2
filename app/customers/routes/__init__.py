"""Routes of customers, their payment methods, invoices and access."""
