"""
What the command ``lmtpsvc`` can do beside serving, which is ``twistd lmtp``.
"""
