"""Customers: profiles, links to logins, payment methods, invoices and access."""
