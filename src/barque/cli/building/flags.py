"""The flags of `build` and `bake`."""

_FILES = """
- metadata-file string Write what the build made as JSON to a file
- explain optional Say for each step why it was or was not in the cache; --explain=json: as JSON on standard output
- progress string=auto Type of progress output ("auto", "plain", "tty", "rawjson", "quiet")
"""
BUILD = f"""{_FILES}
- add-host list Add a custom host-to-IP mapping (format: "host:ip")
- allow list Allow extra privileged entitlement (e.g., "network.host", "security.insecure")
- annotation list Add annotation to the image
- attest list Attestation parameters (format: "type=sbom,generator=image")
- build-arg list Set build-time variables
- build-context list Additional build contexts (e.g., name=path)
- builder string Builder to use: the engine has one, "default"
- cache-from list External cache sources (e.g., "user/app:cache", "type=registry,ref=user/app:cache")
- cache-to list Cache export destinations (e.g., "user/app:cache", "type=registry,ref=user/app:cache")
- call string=build Set method for evaluating build ("check", "outline", "targets")
- cgroup-parent string Set the parent cgroup for the RUN instructions during build
- check bool Shorthand for "--call=check"
f file string Name of the Dockerfile (default: "PATH/Dockerfile")
- iidfile string Write the image ID to a file
- label list Set metadata for an image
- load bool Shorthand for "--output=type=docker"
- network string=default Set the networking mode for the RUN instructions during build
- no-cache bool Do not use cache when building the image
- no-cache-filter strings Do not cache specified stages
o output list Output destination (format: "type=local,dest=path")
- platform strings Set target platform for build
- provenance string Shorthand for "--attest=type=provenance"
- pull bool Always attempt to pull all referenced images
- push bool Shorthand for "--output=type=registry,unpack=false"
q quiet bool Suppress the build output and print image ID on success
- sbom string Shorthand for "--attest=type=sbom"
- secret list Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")
- shm-size bytes Shared memory size for build containers
- ssh list SSH agent socket to expose to the build (format: "default|<id>[=<socket>]")
t tag list Image identifier (format: "[registry/]repository[:tag]")
- target string Set the target build stage to build
- ulimit ulimit Ulimit options
- verify-reproducible bool Build twice without the cache, compare, and show the first difference
"""
BAKE = f"""{_FILES}
- allow list Allow build to access specified resources (e.g., "network.host", "security.insecure")
- builder string Builder to use: the engine has one, "default"
f file list Build definition file
- list string List targets or variables
- load bool Shorthand for "--set=*.output=type=docker"
- no-cache bool Do not use cache when building the image
- print bool Print the options without building
- provenance string Shorthand for "--set=*.attest=type=provenance"
- pull bool Always attempt to pull all referenced images
- push bool Shorthand for "--set=*.output=type=registry"
- sbom string Shorthand for "--set=*.attest=type=sbom"
- set list Override target value (e.g., "targetpattern.key=value")
- var list Set a variable value (e.g., "name=value")
"""
DU = """
- builder string Builder to ask: the engine has one, "default"
- filter filter Provide filter values
- verbose bool Provide a more verbose output
"""
PRUNE = """
a all bool Include internal/frontend images
- builder string Builder to prune: the engine has one, "default"
- filter filter Provide filter values (e.g., "until=24h")
f force bool Do not prompt for confirmation
- keep-storage! bytes Amount of disk space to keep for cache
- max-used-space bytes Maximum amount of disk space allowed to keep for cache
- min-free-space bytes Target amount of free disk space after pruning
- reserved-space bytes Amount of disk space always allowed to keep for cache
- verbose bool Provide a more verbose output
"""
BUILDER_PRUNE = """
a all bool Remove all unused build cache, not just dangling ones
- dry-run bool Only say what would be removed
- filter filter Provide filter values (e.g. "until=24h")
f force bool Do not prompt for confirmation
- keep-storage bytes Amount of disk space to keep for cache
"""
HISTORY_LS = """
- builder string Builder to ask: the engine has one, "default"
- filter list Provide filter values (e.g., "status==error", "ref~=^a", "repository==...")
- format string Format the output (table, json) (default "table")
- no-trunc bool Don't truncate output
"""
HISTORY_INSPECT = """
- builder string Builder to ask: the engine has one, "default"
- format string Format the output (pretty, json) (default "pretty")
"""
HISTORY_LOGS = """
- builder string Builder to ask: the engine has one, "default"
- progress string Set type of progress output (plain, rawjson) (default "plain")
"""
HISTORY_RM = """
- all bool Remove all builds
- builder string Builder to ask: the engine has one, "default"
"""
TABLES = {"buildx history ls": HISTORY_LS, "buildx history inspect": HISTORY_INSPECT,
          "buildx history logs": HISTORY_LOGS, "buildx history rm": HISTORY_RM, "build": BUILD, "bake": BAKE, "buildx du": DU, "buildx prune": PRUNE, "builder prune": BUILDER_PRUNE}
