"""Plant faults in copies of the product, one at a time, and see who finds each: the tests, the simulation, the spec.

`python -m tests.mutants --help` runs it. A fault that nobody finds says what the tests lack.
"""
