"""
Twisted on the listening side: protocol, factory, service.
"""
