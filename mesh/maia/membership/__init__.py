"""Who is here, and how sure are we: SWIM with Lifeguard, by memberlist's rules and Maia's additions to them.

Pure: messages and `now` in, messages and events out. `members` is the table, `swim` decides what a message changes in it, `probing` finds
out who still answers, `suspicion` how long a doubt may last, `awareness` whether the doubt is about ourselves, `hearing` whether we can
still open what members send, `rumours` what is still to be told, `reunion` how those who were lost are found again. Nothing here knows what
a member offers, or what a socket is.
"""
