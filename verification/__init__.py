"""Programs that prove what the service promises, at a length that a test run cannot afford."""
