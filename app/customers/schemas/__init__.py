"""Requests and answers about customers, payment methods and invoices."""
