"""Start the whole product on one machine."""
