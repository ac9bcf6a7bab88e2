"""Requests and answers about members, seats and transfers."""
