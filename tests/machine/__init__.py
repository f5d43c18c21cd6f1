"""The scripts against a model of them: random histories with repetitions, late calls, crashes and time."""
