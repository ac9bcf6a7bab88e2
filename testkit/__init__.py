"""What tests, verification and benchmarks share: databases, processes, the stand-in's client and companies in it."""
