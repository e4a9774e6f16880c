"""
One transaction: spool, trace headers, routing, dispatch.
"""
