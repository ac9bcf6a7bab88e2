"""Use cases: the order of steps. They open and commit their transactions themselves, before anything is answered."""
