"""The first import of the process that the pool forks its runs from: disables garbage collection.

Nearly all objects that torch and transformers create on import stay, and collecting took a quarter
of the import time. Each forked run enables it again.
"""

import gc

gc.disable()
