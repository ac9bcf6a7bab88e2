"""Calls to Stripe and the parsing of Stripe's JSON. The only importer of the Stripe SDK."""
