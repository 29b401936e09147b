"""What the process that a pool forks its runs from imports first: from then on it keeps all it has.

While it imports torch and transformers nearly every object stays, and looking for garbage among
them took a quarter of the time (`importing.py` does the same for a single run). Each run looks for
its own garbage again. Imported by the fork server of `pool.py` alone, in a process of its own.
"""

import gc

gc.disable()
