"""Building images: a graph of content-addressed steps, solved side by side, and the frontends that make it.

How a frontend feeds the solver
    It makes vertices (`graph`): `Source` (an image, a local tree, a URL, a repository), `Exec`, `Files`
    (copy, make file, make folder, remove, link), `Merge`, `Diff`. A vertex names its inputs, which are
    vertices too; nothing else ties steps together. `Solver.solve(vertex, session)` gives the vertex's
    `Result`: layers (chain ids of committed snapshots), or a `Tree` for what is not in layers (a context).
    Only what the wanted vertex needs is solved; one vertex is solved once at a time for all builds.

Keys
    A step's cache key is the digest of its own definition, of the chain ids of the layers it starts from,
    and of the content of what it takes of its other inputs (`checksum`: of the files a COPY takes, not of
    the whole context). A key found in `cache` gives the layers at once.

Rooms inside
    graph, trees, tar_tree, folder_tree, checksum, copying    data, and plain blocking work on files
    layers, cache                                             layers made of snapshots, records on disk
    solver, operations, execution, sources                    coroutines that carry vertices out
    scope, stages, dockerfile                                 the Dockerfile frontend: stages to vertices
    context, classic, service                                 the classic API
"""
