"""Client libraries get through frontend and worker what they get from the engine itself.

Each program in `programs` runs against a replay server directly, and through each of two frontends. What the library
returned is compared feature by feature, and the table in docs/clients.md is made of the same list.
"""
