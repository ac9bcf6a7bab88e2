"""Products and prices, and the currency to show them in."""
