"""All commands: where each one's code lives, its usage line, and the names it goes by."""

from barque.base.record import Record


class Command(Record):
    """One command.

    `places` counts its positional words: least and most (-1: any number). `code` is
    "module:function" below barque.cli.
    """

    code: str
    usage: str
    places: tuple[int, int]
    text: str


_MANY = "[OPTIONS] CONTAINER [CONTAINER...]"
_PLAIN_MANY = "CONTAINER [CONTAINER...]"

COMMANDS: dict[str, Command] = {
    "bake": Command("building.bake.command:bake", "[OPTIONS] [TARGET...]", (0, -1), "Build from a file"),
    "build": Command("building.command:build", "[OPTIONS] PATH | URL | -", (1, 1), "Build an image from a Dockerfile"),
    "builder prune": Command("building.upkeep:builder_prune", "[OPTIONS]", (0, 0), "Remove build cache"),
    "buildx du": Command("building.upkeep:du", "[OPTIONS]", (0, 0), "Disk usage"),
    "buildx history inspect": Command("building.history:inspect", "[OPTIONS] [REF]", (0, 1), "Inspect a build"),
    "buildx history logs": Command("building.history:logs", "[OPTIONS] [REF]", (0, 1), "Print the logs of a build"),
    "buildx history ls": Command("building.history:ls", "[OPTIONS]", (0, 0), "List builds"),
    "buildx history rm": Command("building.history:rm", "[OPTIONS] [REF...]", (0, -1), "Remove builds from the history"),
    "buildx inspect": Command("building.upkeep:inspect", "[NAME]", (0, 1), "Inspect current builder instance"),
    "buildx ls": Command("building.upkeep:ls", "", (0, 0), "List builder instances"),
    "buildx prune": Command("building.upkeep:prune", "[OPTIONS]", (0, 0), "Remove build cache"),
    "container attach": Command(
        "attach:attach",
        "[OPTIONS] CONTAINER",
        (1, 1),
        "Attach local standard input, output, and error streams to a running container",
    ),
    "container commit": Command(
        "images:commit",
        "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        (1, 2),
        "Create a new image from a container's changes",
    ),
    "container cp": Command(
        "copy:cp",
        "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n[OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
        (2, 2),
        "Copy files/folders between a container and the local filesystem",
    ),
    "container create": Command("run:create", "[OPTIONS] IMAGE [COMMAND] [ARG...]", (1, -1), "Create a new container"),
    "container diff": Command(
        "containers:diff", "CONTAINER", (1, 1), "Inspect changes to files or directories on a container's filesystem"
    ),
    "container exec": Command(
        "execute:execute", "[OPTIONS] CONTAINER COMMAND [ARG...]", (2, -1), "Execute a command in a running container"
    ),
    "container export": Command(
        "images:export", "[OPTIONS] CONTAINER", (1, 1), "Export a container's filesystem as a tar archive"
    ),
    "container inspect": Command(
        "inspect:containers", _MANY, (1, -1), "Display detailed information on one or more containers"
    ),
    "container kill": Command("containers:kill", _MANY, (1, -1), "Kill one or more running containers"),
    "container logs": Command("logs:logs", "[OPTIONS] CONTAINER", (1, 1), "Fetch the logs of a container"),
    "container ls": Command("ps:ls", "[OPTIONS]", (0, 0), "List containers"),
    "container pause": Command(
        "containers:pause", _PLAIN_MANY, (1, -1), "Pause all processes within one or more containers"
    ),
    "container port": Command(
        "containers:port",
        "CONTAINER [PRIVATE_PORT[/PROTO]]",
        (1, 2),
        "List port mappings or a specific mapping for the container",
    ),
    "container prune": Command("prune:containers", "[OPTIONS]", (0, 0), "Remove all stopped containers"),
    "container rename": Command("containers:rename", "CONTAINER NEW_NAME", (2, 2), "Rename a container"),
    "container restart": Command("containers:restart", _MANY, (1, -1), "Restart one or more containers"),
    "container rm": Command("containers:rm", _MANY, (1, -1), "Remove one or more containers"),
    "container run": Command(
        "run:run", "[OPTIONS] IMAGE [COMMAND] [ARG...]", (1, -1), "Create and run a new container from an image"
    ),
    "container start": Command("attach:start", _MANY, (1, -1), "Start one or more stopped containers"),
    "container stats": Command(
        "stats:stats",
        "[OPTIONS] [CONTAINER...]",
        (0, -1),
        "Display a live stream of container(s) resource usage statistics",
    ),
    "container stop": Command("containers:stop", _MANY, (1, -1), "Stop one or more running containers"),
    "container top": Command(
        "containers:top", "CONTAINER [ps OPTIONS]", (1, -1), "Display the running processes of a container"
    ),
    "container unpause": Command(
        "containers:unpause", _PLAIN_MANY, (1, -1), "Unpause all processes within one or more containers"
    ),
    "container update": Command("containers:update", _MANY, (1, -1), "Update configuration of one or more containers"),
    "container wait": Command(
        "containers:wait", _PLAIN_MANY, (1, -1), "Block until one or more containers stop, then print their exit codes"
    ),
    "image history": Command("history:history", "[OPTIONS] IMAGE", (1, 1), "Show the history of an image"),
    "image import": Command(
        "images:import_image",
        "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        (1, 2),
        "Import the contents from a tarball to create a filesystem image",
    ),
    "image inspect": Command(
        "inspect:images", "[OPTIONS] IMAGE [IMAGE...]", (1, -1), "Display detailed information on one or more images"
    ),
    "image load": Command("images:load", "[OPTIONS]", (0, 0), "Load an image from a tar archive or STDIN"),
    "image ls": Command("image_list:ls", "[OPTIONS] [REPOSITORY[:TAG]]", (0, 1), "List images"),
    "image prune": Command("prune:images", "[OPTIONS]", (0, 0), "Remove unused images"),
    "image pull": Command(
        "transfers:pull", "[OPTIONS] NAME[:TAG|@DIGEST]", (1, 1), "Download an image from a registry"
    ),
    "image push": Command("transfers:push", "[OPTIONS] NAME[:TAG]", (1, 1), "Upload an image to a registry"),
    "image rm": Command("images:rm", "[OPTIONS] IMAGE [IMAGE...]", (1, -1), "Remove one or more images"),
    "image save": Command(
        "images:save",
        "[OPTIONS] IMAGE [IMAGE...]",
        (1, -1),
        "Save one or more images to a tar archive (streamed to STDOUT by default)",
    ),
    "image tag": Command(
        "images:tag",
        "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        (2, 2),
        "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    ),
    "device add": Command(
        "devices:add", "CONTAINER DEVICE [DEVICE...]", (2, -1), "Give devices to a container, running or not"
    ),
    "device ls": Command("devices:ls", "[OPTIONS] CONTAINER", (1, 1), "List the devices that a container was given"),
    "device rm": Command("devices:rm", "CONTAINER PATH [PATH...]", (2, -1), "Take devices from a container"),
    "login": Command(
        "login:login",
        "[OPTIONS] [SERVER]",
        (0, 1),
        "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
    ),
    "logout": Command(
        "login:logout",
        "[SERVER]",
        (0, 1),
        "Log out from a registry.\nIf no server is specified, the default is defined by the daemon.",
    ),
    "manifest annotate": Command(
        "manifests:annotate",
        "[OPTIONS] MANIFEST_LIST MANIFEST",
        (2, 2),
        "Add additional information to a local image manifest",
    ),
    "manifest create": Command(
        "manifests:create",
        "MANIFEST_LIST MANIFEST [MANIFEST...]",
        (2, -1),
        "Create a local manifest list for annotating and pushing to a registry",
    ),
    "manifest inspect": Command(
        "manifests:inspect",
        "[OPTIONS] [MANIFEST_LIST] MANIFEST",
        (1, 2),
        "Display an image manifest, or manifest list",
    ),
    "manifest push": Command(
        "manifests:push", "[OPTIONS] MANIFEST_LIST", (1, 1), "Push a manifest list to a repository"
    ),
    "manifest rm": Command(
        "manifests:rm",
        "MANIFEST_LIST [MANIFEST_LIST...]",
        (1, -1),
        "Delete one or more manifest lists from local storage",
    ),
    "search": Command("transfers:search", "[OPTIONS] TERM", (1, 1), "Search Docker Hub for images"),
    "mount add": Command(
        "mounts:add", "[OPTIONS] CONTAINER", (1, 1), "Mount files, volumes or tmpfs in a container, running or not"
    ),
    "mount ls": Command("mounts:ls", "[OPTIONS] CONTAINER", (1, 1), "List what is mounted in a container"),
    "mount rm": Command("mounts:rm", "CONTAINER TARGET [TARGET...]", (2, -1), "Take mounts out of a container"),
    "network connect": Command(
        "networks:connect", "[OPTIONS] NETWORK CONTAINER", (2, 2), "Connect a container to a network"
    ),
    "network create": Command("networks:create", "[OPTIONS] NETWORK", (1, 1), "Create a network"),
    "network disconnect": Command(
        "networks:disconnect", "[OPTIONS] NETWORK CONTAINER", (2, 2), "Disconnect a container from a network"
    ),
    "network graph": Command(
        "networks:graph", "[OPTIONS] [NETWORK...]", (0, -1), "Draw networks, their containers and published ports"
    ),
    "network inspect": Command(
        "inspect:networks",
        "[OPTIONS] NETWORK [NETWORK...]",
        (1, -1),
        "Display detailed information on one or more networks",
    ),
    "network ls": Command("networks:ls", "[OPTIONS]", (0, 0), "List networks"),
    "network prune": Command("prune:networks", "[OPTIONS]", (0, 0), "Remove all unused networks"),
    "network rename": Command(
        "networks:rename", "NETWORK NEW_NAME", (2, 2), "Rename a network that no container is in"
    ),
    "network rm": Command("networks:rm", "NETWORK [NETWORK...]", (1, -1), "Remove one or more networks"),
    "registry gc": Command("registry:gc", "[OPTIONS]", (0, 0), "Remove content of a registry that nothing refers to"),
    "registry serve": Command("registry:serve", "[OPTIONS]", (0, 0), "Serve a registry of images"),
    "system check": Command(
        "check:check", "[OPTIONS]", (0, 0), "Verify all that the engine keeps on disk, and repair it"
    ),
    "config create": Command("secrets:create", "[OPTIONS] CONFIG [file|-]", (1, 2), "Keep a config from a file or STDIN"),
    "config inspect": Command(
        "secrets:inspect", "[OPTIONS] CONFIG [CONFIG...]", (1, -1), "Display detailed information on one or more configs"
    ),
    "config ls": Command("secrets:ls", "[OPTIONS]", (0, 0), "List configs"),
    "config rm": Command("secrets:rm", "CONFIG [CONFIG...]", (1, -1), "Remove one or more configs"),
    "config update": Command("secrets:update", "CONFIG [file|-]", (1, 2), "Give a config another value, at once"),
    "secret create": Command("secrets:create", "[OPTIONS] SECRET [file|-]", (1, 2), "Keep a secret from a file or STDIN"),
    "secret inspect": Command(
        "secrets:inspect", "[OPTIONS] SECRET [SECRET...]", (1, -1), "Display detailed information on one or more secrets"
    ),
    "secret ls": Command("secrets:ls", "[OPTIONS]", (0, 0), "List secrets"),
    "secret rm": Command("secrets:rm", "SECRET [SECRET...]", (1, -1), "Remove one or more secrets"),
    "secret update": Command("secrets:update", "SECRET [file|-]", (1, 2), "Give a secret another value, at once"),
    "system df": Command("disk:df", "[OPTIONS]", (0, 0), "Show disk usage"),
    "system events": Command("events:events", "[OPTIONS]", (0, 0), "Get real time events from the server"),
    "system info": Command("info:info", "[OPTIONS]", (0, 0), "Display system-wide information"),
    "system prune": Command("prune:system", "[OPTIONS]", (0, 0), "Remove unused data"),
    "volume export": Command(
        "volumes:export", "[OPTIONS] VOLUME", (1, 1), "Save a volume's files as a tar archive or an image"
    ),
    "volume import": Command(
        "volumes:restore",
        "[OPTIONS] VOLUME [file|-]",
        (1, 2),
        "Unpack a tar archive or an image's files into a volume",
    ),
    "volume rename": Command("volumes:rename", "VOLUME NEW_NAME", (2, 2), "Rename a volume that nobody uses"),
    "volume update": Command("volumes:update", "[OPTIONS] VOLUME", (1, 1), "Update a volume (cluster volumes only)"),
    "volume create": Command("volumes:create", "[OPTIONS] [VOLUME]", (0, 1), "Create a volume"),
    "volume inspect": Command(
        "inspect:volumes",
        "[OPTIONS] VOLUME [VOLUME...]",
        (1, -1),
        "Display detailed information on one or more volumes",
    ),
    "volume ls": Command("volumes:ls", "[OPTIONS]", (0, 0), "List volumes"),
    "volume prune": Command("prune:volumes", "[OPTIONS]", (0, 0), "Remove unused local volumes"),
    "volume rm": Command(
        "volumes:rm",
        "[OPTIONS] VOLUME [VOLUME...]",
        (1, -1),
        "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    ),
    "inspect": Command(
        "inspect:anything", "[OPTIONS] NAME|ID [NAME|ID...]", (1, -1), "Return low-level information on Docker objects"
    ),
    "version": Command("version:version", "[OPTIONS]", (0, 0), "Show the version information"),
}

NESTED_GROUPS = {"buildx history": "Manage the records of builds"}
"""Groups inside of groups."""
GROUPS = {
    "builder": "Manage builds",
    "buildx": "Manage builds, by the names of Docker's plugin",
    "config": "Manage configs that containers are given",
    "container": "Manage containers",
    "device": "Manage devices of containers that exist",
    "image": "Manage images",
    "manifest": "Manage image manifests and manifest lists",
    "mount": "Manage mounts of containers that exist",
    "network": "Manage networks",
    "registry": "Run a registry of images",
    "secret": "Manage secrets that containers are given",
    "system": "Manage Barque",
    "volume": "Manage volumes",
}

LOCAL = ("registry gc", "registry serve")
"""Commands that need no engine; they are given their flags alone."""

OFFLINE = ("logout", "manifest annotate", "manifest create", "manifest inspect", "manifest push", "manifest rm")
"""Commands that need no engine; they are given their words, their flags and the global flags."""

ALIASES = {
    "image build": "build",
    "builder build": "build",
    "buildx build": "build",
    "buildx bake": "bake",
    "container list": "container ls",
    "container ps": "container ls",
    "container remove": "container rm",
    "image list": "image ls",
    "image remove": "image rm",
    "network list": "network ls",
    "network remove": "network rm",
    "volume backup": "volume export",
    "volume restore": "volume import",
    "volume list": "volume ls",
    "volume remove": "volume rm",
    "ps": "container ls",
    "images": "image ls",
    "rmi": "image rm",
    "history": "image history",
    "import": "image import",
    "load": "image load",
    "pull": "image pull",
    "push": "image push",
    "save": "image save",
    "tag": "image tag",
    "events": "system events",
    "info": "system info",
}
for _verb in [
    "attach",
    "commit",
    "cp",
    "create",
    "diff",
    "exec",
    "export",
    "kill",
    "logs",
    "pause",
    "port",
    "rename",
    "restart",
    "rm",
    "run",
    "start",
    "stats",
    "stop",
    "top",
    "unpause",
    "update",
    "wait",
]:
    ALIASES[_verb] = f"container {_verb}"

COMMON = ("run", "exec", "ps", "images", "version", "info")


def find(words: list[str]) -> tuple[str, str, list[str]] | None:
    """Find the command that words begin with.

    Returns:
        Its canonical path, the path as typed, and the words behind it; None where there is none.
    """
    for length in (3, 2, 1):
        typed = " ".join(words[:length])
        path = ALIASES.get(typed, typed)
        if path in COMMANDS and len(words) >= length:
            return path, typed, words[length:]
    return None


def names(path: str) -> list[str]:
    """Return the canonical path and all aliases of a command, as the help text lists them."""
    return [path, *(alias for alias, target in ALIASES.items() if target == path)]
