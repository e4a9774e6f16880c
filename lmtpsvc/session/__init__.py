"""
Who may say what, when: the LMTP conversation without sockets, clock or Deferreds.
"""
