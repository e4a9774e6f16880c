"""
The name of the backend that benchmarks use; seen by twistd when ``benchmarks`` is on its path.
"""

from discard import DiscardFactory

discard = DiscardFactory()
