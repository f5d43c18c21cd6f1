"""Cancel requests from the command line: by id, or all that match a selector."""
