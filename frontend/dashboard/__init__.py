"""The dashboard: a live picture of the cluster, shared by all who look at it through this frontend."""
