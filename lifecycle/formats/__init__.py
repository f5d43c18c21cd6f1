"""The formats of the events that engines yield: one module for each kind of endpoint."""
