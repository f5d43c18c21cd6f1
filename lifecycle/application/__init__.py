"""The library's own interface for applications: track what runs in their process, submit, resume, and run an engine."""
