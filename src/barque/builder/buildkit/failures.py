"""What clients are told of a command that failed besides its place, so that they can make containers of what it left."""

import json

from google.protobuf.json_format import MessageToDict

from barque.builder.buildkit.builds import References
from barque.builder.buildkit.details import Details
from barque.builder.buildkit.llb import operation_of
from barque.builder.execution import ExitError
from barque.builder.graph import Exec, Failed
from barque.builder.solver import Session

SOLVE = "github.com/moby/buildkit/errdefs.Solve+json"


def details_of_command(session: Session, references: References) -> Details:
    """Return the command that failed in a build as an error's details, nothing where none did.

    They name what its root and mounts had before it (`inputIDs`) and after it (`mountIDs`).
    """
    for vertex, task in session.tasks.items():
        if not isinstance(vertex, Exec) or not task.done() or task.cancelled():
            continue
        error = task.exception()
        # Steps that stand on it fail with the same error.
        if isinstance(error, ExitError) and error.step.args == vertex.args and error.step.env == vertex.env:
            before = [references.add(vertex.needs[0])]
            after = [references.add(Failed(vertex, error.kept))] if error.kept else before[:]
            for mount in vertex.mounts:
                if mount.target:
                    name = references.add(vertex.needs[mount.input]) if mount.input > 0 else ""
                    before.append(name)
                    after.append(name)
            operation = MessageToDict(operation_of(vertex))
            value = {"inputIDs": before, "mountIDs": after, "op": operation}
            return [(SOLVE, json.dumps(value).encode())]
    return []

