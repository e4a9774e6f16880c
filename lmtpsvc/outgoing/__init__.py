"""
Twisted on the connecting side: messages over LMTP and SMTP, through connections that are kept.
"""
