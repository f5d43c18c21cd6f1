"""Track requests on a frontend: admission, monitoring, readers, cancellation."""
