"""The command line: words in, one call into a room below, words out. One file a command.

`app` composes the commands and `options` holds what several of them take; `terminal` prints and
listens. What a command needs is imported when it runs, so that ``--help`` answers at once.
"""
