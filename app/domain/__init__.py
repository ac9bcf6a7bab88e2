"""The rules about people, seats and money terms: pure, no I/O, standard library only."""
