"""Everything about one HTTP call that is not its route: its id, headers, body, parameters and dependencies."""
