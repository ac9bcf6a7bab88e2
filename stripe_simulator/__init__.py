"""A stateful stand-in for Stripe's API, reached over HTTP through Stripe's own SDK. A process of its own."""

API_VERSION = "2026-10-28.endive"
