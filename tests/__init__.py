"""The tests of the project.

Interpreters that tests start keep the bytecode that they compile, whatever the variable of the machine says: without it
each of many hundreds compiles the whole product.
"""

import os
import sys

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
