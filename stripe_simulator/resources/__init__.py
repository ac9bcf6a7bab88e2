"""Handlers by resource; each takes a ``Call`` and gives the wire form of its answer."""
