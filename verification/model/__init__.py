"""An exhaustive model of the write protocol: every interleaving of one step with a small Stripe."""
