"""The HTTP face: parse, identify, call one use case, answer. Route functions are the documented method names."""
