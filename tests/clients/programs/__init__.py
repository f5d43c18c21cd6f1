"""Programs as users of client libraries write them. Each is run against several servers, and prints what it got."""
