"""
The name of the backend that benchmarks use; seen by twistd when ``benchmarks`` and what holds it are on its path.
"""

from benchmarks.discard import DiscardFactory

discard = DiscardFactory()
