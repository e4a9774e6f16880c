"""
The relay: SMTP in, a durable queue, and LMTP or SMTP out.
"""
