"""The routes under a customer, and single invoices."""
