"""Every call to Stripe and every reading of Stripe's JSON. The only importer of the Stripe SDK."""
