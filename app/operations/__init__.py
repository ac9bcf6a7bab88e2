"""A change at Stripe, exactly once: the states of one write, and what moves it from one to the next."""
