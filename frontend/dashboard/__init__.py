"""The dashboard: the live state of the cluster, shared by all viewers of this frontend."""
