"""Products and prices on sale, and the currency to show them in."""
