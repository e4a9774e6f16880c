"""
Who may log in: checkers of `twisted.cred`, chosen by the words of ``--auth``.
"""
