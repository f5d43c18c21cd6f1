"""Track requests on a frontend: admission, monitoring, readers, cancellation.

`Tracker` is the entry point. What it consists of is handed to its parts when they are made, from the bottom up:
FrontendState → Readers → OwnedRequests → PushDispatcher, AdmissionControl, Membership → Tracker.
"""
