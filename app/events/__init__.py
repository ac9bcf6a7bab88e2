"""Events: the application learns of every change of seats and access."""
