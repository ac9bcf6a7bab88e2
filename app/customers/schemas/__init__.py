"""Requests and answers about customers and invoices."""
