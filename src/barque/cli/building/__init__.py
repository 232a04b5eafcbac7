"""`build`, `bake` and `buildx`: a client of BuildKit's API, as the engine serves it.

command, bake/             the verbs: flags and files become requests
request, contexts, outputs what is asked for, of which context, and where the outcome goes
link                       connections to the engine: one to call it, one on which it calls us
offers, files, walk        what we serve: files, secrets, agents, credentials; what we receive
solve                      one build from beginning to end
trace, plain, screen, ...  its progress, told in one of several forms
"""
