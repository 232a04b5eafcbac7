"""The flags of all verbs but run and create, by the verb's module table name."""

_FORMAT = "string Print by a template: 'table', 'table TEMPLATE', 'json', or 'TEMPLATE' (Go template)"
_FORMAT_PLAIN = "string Print by a template: 'json', or 'TEMPLATE' (Go template)"
_KEYS = "- detach-keys string Override the keys that detach from the container\n"
_TIMEOUT = """
s signal string Signal to send to the container
t timeout int Seconds to wait before the container is killed
- time! int Seconds to wait before the container is killed
"""
_PRUNE = """
- dry-run bool Only say what would be removed
- filter filter Choose by conditions (e.g. "until=<timestamp>")
f force bool Do not ask for confirmation
"""

_REGISTRY = """
- config string Configuration file: a JSON object of these flags and of secrets
- root string=/var/lib/barque-registry Folder to keep the content in
- s3-bucket string Bucket of an S3-compatible object store to keep the content in
- s3-endpoint string URL of the object store
- s3-prefix string Prefix of all keys in the bucket
- s3-region string Region of the bucket
- log-level string=info Level of the log on standard error (debug, info, warn, error)
"""

_RETAIN = """- retain list Tags to keep, the newest or the young: [REPOSITORY[:TAG]=]COUNT or AGE, such as ci/*:pr-*=10 or 720h
"""

TABLES = {
    "system check": """
- format string Print as JSON ('json') instead of text
- quick bool Do not read content to compare digests
- repair bool Repair what can be repaired; what is lost is forgotten, to be pulled anew
""",
    "registry gc": f"""{_REGISTRY}- dry-run bool Only say what would go
- gc-grace duration=1h0m0s How long content that nothing refers to stays
- gc-untagged bool Collect manifests without a tag, too
{_RETAIN}- upload-expiry duration=168h0m0s How long an interrupted upload stays
""",
    "registry serve": f"""{_REGISTRY}- addr list Address to listen on (host:port, default 127.0.0.1:5000)
- absolute-urls bool Answer with whole URLs instead of paths
- gc-grace duration=1h0m0s How long content that nothing refers to stays
- gc-interval duration=1h0m0s How often garbage is collected (0: never)
- gc-untagged bool Collect manifests without a tag, too
- htpasswd string File of users with bcrypt hashes (htpasswd -B)
- idle-timeout duration=1m0s How long a client may send or take nothing
- max-blob-size bytes Refuse bigger blobs
- max-requests int=1000 Requests answered at a time
- metrics-addr string Address for /metrics (Prometheus) and /healthz
- no-delete bool Refuse to delete
- page-size int=1000 Most entries of one answer of a listing
- proxy string URL of a registry to cache
- proxy-ca string Certificates that sign the cached registry's
- proxy-password-file string File with the password at the cached registry
- proxy-ttl duration=168h0m0s How long cached content stays that nobody asks for (0: for ever)
- proxy-user string User at the cached registry
- read-only bool Refuse all changes
- realm string=Registry Realm of Basic authentication
{_RETAIN}- sparse-manifests bool Take manifests that refer to missing content
- tls-cert string Certificate to serve TLS with
- tls-client-ca string Demand client certificates signed by these
- tls-key string Key of the certificate
- token-issuer string Issuer that tokens must have
- token-key list File of keys that sign tokens (PEM or JWKS)
- token-realm string URL of the token server; turns Bearer authentication on
- token-service string Audience that tokens must have
- upload-expiry duration=168h0m0s How long an interrupted upload stays
""",

    "container ls": f"""
a all bool Show all containers (else only running ones)
f filter filter Show what meets the conditions
- format {_FORMAT}
n last int=-1 Show the n containers created last (in any state)
l latest bool Show the container created last (in any state)
- no-trunc bool Don't truncate output
q quiet bool Only display container IDs
s size bool Display total file sizes
""",
    "container start": f"""
a attach bool Attach STDOUT/STDERR and forward signals
- checkpoint string Restore from this checkpoint
- checkpoint-dir string Use another folder of checkpoints
{_KEYS}i interactive bool Attach the container's STDIN
""",
    "container stop": _TIMEOUT,
    "container restart": _TIMEOUT,
    "container kill": "s signal string Signal to send to the container",
    "container rm": """
f force bool Remove a running container too (with SIGKILL)
l link bool Remove the named link
v volumes bool Remove the container's anonymous volumes
""",
    "container logs": """
- clear bool Forget what the container has logged
- details bool Show what the log options added
f follow bool Follow log output
- since string Show logs since a time (e.g. "2013-01-02T13:23:37Z") or a duration ago (e.g. "42m")
n tail string=all Number of lines to show from the end
t timestamps bool Show timestamps
- until string Show logs before a time (e.g. "2013-01-02T13:23:37Z") or a duration ago (e.g. "42m")
""",
    "container exec": f"""
d detach bool Run the command in the background
{_KEYS}e env list Set environment variables
- env-file list Read environment variables from a file
i interactive bool Keep STDIN open even if not attached
- privileged bool Give extended privileges to the command
t tty bool Allocate a pseudo-TTY
u user string User name or id (format: "<name|uid>[:<group|gid>]")
w workdir string Working directory inside the container
""",
    "container attach": f"""
{_KEYS}- no-stdin bool Do not attach STDIN
- sig-proxy bool=true Pass all received signals to the process
""",
    "inspect": f"""
f format {_FORMAT_PLAIN}
s size bool Display total file sizes of containers
- type string Only inspect objects of this type
""",
    "container inspect": f"""
f format {_FORMAT_PLAIN}
s size bool Display total file sizes
""",
    "image inspect": f"""
f format {_FORMAT_PLAIN}
- platform string Inspect this platform of an image that has several (os[/arch[/variant]])
""",
    "volume inspect": f"f format {_FORMAT_PLAIN}",
    "network inspect": f"""
f format {_FORMAT_PLAIN}
v verbose bool Show what helps to find faults
""",
    "container top": "",
    "container stats": f"""
a all bool Show all containers (else only running ones)
- format {_FORMAT}
- no-stream bool Print once and end
- no-trunc bool Do not truncate output
""",
    "container cp": """
a archive bool Archive mode (copy all uid/gid information)
L follow-link bool Follow a symbolic link in SRC_PATH
q quiet bool No progress output; there is none without a terminal
""",
    "container commit": """
a author string Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
c change list Apply a Dockerfile instruction to the image
m message string Commit message
p pause bool=true Pause the container during commit
""",
    "container export": "o output string Write to a file, instead of STDOUT",
    "container update": """
- blkio-weight uint16 Block IO weight, 10 to 1000, or 0 to disable (default 0)
- cpu-period int Limit CPU CFS (Completely Fair Scheduler) period
- cpu-quota int Limit CPU CFS (Completely Fair Scheduler) quota
- cpu-rt-period int Limit the CPU real-time period in microseconds
- cpu-rt-runtime int Limit the CPU real-time runtime in microseconds
c cpu-shares int CPU shares (relative weight)
- cpus decimal Number of CPUs
- cpuset-cpus string CPUs in which to allow execution (0-3, 0,1)
- cpuset-mems string MEMs in which to allow execution (0-3, 0,1)
e env list Set an environment variable (NAME=value) for the next start
- env-rm list Take an environment variable away for the next start
- kernel-memory! bytes Kernel memory limit
l label list Set a label (key=value)
- label-rm list Take a label away
m memory bytes Memory limit
- memory-reservation bytes Memory soft limit
- memory-swap bytes Limit of memory and swap together: -1 for unlimited swap
- pids-limit int Limit the number of processes (-1 for unlimited)
- publish-add list Publish a port of a running or stopped container
- publish-rm list Stop publishing a port: 80, 80/udp, or the value it was published with
- restart string What to do when a container exits
""",
    "container prune": _PRUNE,
    "image ls": f"""
a all bool Show all images (else intermediate ones are hidden)
- digests bool Show digests
f filter filter Show what meets the conditions
- format {_FORMAT}
- no-trunc bool Don't truncate output
q quiet bool Only show image IDs
- tree bool List images of several platforms as a tree (EXPERIMENTAL)
""",
    "image import": """
c change list Apply a Dockerfile instruction to the image
m message string Set the commit message of the image
- platform string Set the platform if the server has several
""",
    "image load": """
i input string Read from a tar archive file, instead of STDIN
- platform string Load only this platform (os[/arch[/variant]])
q quiet bool Suppress the load output
""",
    "image save": """
o output string Write to a file, instead of STDOUT
- platform string Save only this platform (os[/arch[/variant]])
""",
    "image pull": """
a all-tags bool Download all tagged images in the repository
- disable-content-trust bool=true Skip image verification
- platform string Set platform if server is multi-platform capable
q quiet bool Suppress verbose output
""",
    "image push": """
a all-tags bool Push all tags of an image to the repository
- disable-content-trust bool=true Skip image signing
- platform string Push this platform of an image alone (os[/arch[/variant]])
q quiet bool Suppress verbose output
""",
    "login": """
p password string Password or Personal Access Token (PAT)
- password-stdin bool Take the Password or Personal Access Token (PAT) from stdin
u username string Username
""",
    "manifest annotate": """
- arch string Set architecture
- os string Set operating system
- os-features strings Set operating system feature
- os-version string Set operating system version
- variant string Set architecture variant
""",
    "manifest create": """
a amend bool Amend an existing manifest list
- insecure bool Allow communication with an insecure registry
""",
    "manifest inspect": """
- insecure bool Allow communication with an insecure registry
v verbose bool Output additional info including layers and platform
""",
    "manifest push": """
- insecure bool Allow push to an insecure registry
p purge bool Remove the local manifest list after push
""",
    "search": """
f filter filter Filter output based on conditions provided
- format string Pretty-print search using a Go template
- limit int Max number of search results
- no-trunc bool Don't truncate output
""",
    "image rm": """
f force bool Force removal of the image
- no-prune bool Do not delete untagged parents
- platform strings Remove only this platform (os[/arch[/variant]])
""",
    "image history": f"""
- format {_FORMAT}
H human bool=true Print sizes and dates for people
- no-trunc bool Don't truncate output
- platform string Show the history of this platform (os[/arch[/variant]])
q quiet bool Only show image IDs
""",
    "image prune": "a all bool Remove all unused images, not just dangling ones" + _PRUNE,
    "system events": f"""
f filter filter Show what meets the conditions
- format {_FORMAT_PLAIN}
- since string Show all events since this time
- until string Stream events until this time
""",
    "system info": f"f format {_FORMAT_PLAIN}",
    "version": f"f format {_FORMAT_PLAIN}",
    "system df": f"""
- format {_FORMAT}
- logs bool Show what each container's log takes
v verbose bool Show every object
""",
    "system prune": "a all bool Remove all unused images not just dangling ones"
    + _PRUNE
    + "- logs bool Also empty the logs of all containers\n- volumes bool Prune anonymous volumes",
    "volume ls": f"""
- cluster bool Display only cluster volumes
f filter filter Choose by conditions (e.g. "dangling=true")
- format {_FORMAT}
q quiet bool Only display volume names
""",
    "volume create": """
- availability string=active Availability of a cluster volume ("active", "pause", "drain")
d driver string=local Volume driver
- group string Group of a cluster volume
- label list Set a label on the volume
- limit-bytes bytes Largest size of a cluster volume
o opt map=map[] Set driver options
- required-bytes bytes Smallest size of a cluster volume
- scope string=single Scope of a cluster volume ("single", "multi")
- secret map=map[] Secrets of a cluster volume
- sharing string=none Sharing of a cluster volume ("none", "readonly", "onewriter", "all")
- topology-preferred list Topology that a cluster volume prefers
- topology-required list Topology that a cluster volume needs
- type string=block Access type of a cluster volume ("mount", "block")
""",
    "volume export": """
- image string Make an image of the files, under this name
o output string Write to a file, instead of STDOUT
""",
    "volume import": """
- clear bool Empty the volume first
- image string Take the files of this image
""",
    "device add": "",
    "device ls": f"- format {_FORMAT}",
    "device rm": "",
    "mount add": """
- mount mount Attach a filesystem mount to the container
v volume list Bind mount a path or a named volume (SRC:DST[:MODE])
""",
    "mount ls": f"- format {_FORMAT}",
    "mount rm": "",
    "config create": "l label list Set a label",
    "config inspect": f"f format {_FORMAT_PLAIN}",
    "config ls": f"""
f filter filter Choose by conditions (e.g. "name=x")
- format {_FORMAT}
q quiet bool Only display ids
""",
    "config rm": "",
    "config update": "",
    "secret create": "l label list Set a label",
    "secret inspect": f"f format {_FORMAT_PLAIN}",
    "secret ls": f"""
f filter filter Choose by conditions (e.g. "name=x")
- format {_FORMAT}
q quiet bool Only display ids
""",
    "secret rm": "",
    "secret update": "",
    "volume rename": "",
    "volume update": "- availability string=active Availability of a cluster volume (\"active\", \"pause\", \"drain\")",
    "volume rm": "f force bool Force the removal of one or more volumes",
    "volume prune": "a all bool Remove all unused volumes, not just anonymous ones" + _PRUNE,
    "network ls": f"""
f filter filter Choose by conditions (e.g. "driver=bridge")
- format {_FORMAT}
- no-trunc bool Do not truncate the output
q quiet bool Only display network IDs
""",
    "network create": """
- attachable bool Allow containers to be attached by hand
- aux-address map=map[] Addresses that the network driver uses itself
- config-from string The network whose configuration is copied
- config-only bool Create only a configuration
d driver string=bridge Driver of the network
- gateway strings IPv4 or IPv6 gateway of the subnet
- ingress bool Create the mesh of a swarm
- internal bool Restrict access from outside
- ip-range strings Give addresses of this part of the subnet
- ipam-driver string=default Driver that gives addresses
- ipam-opt map=map[] Set options of the address driver
- ipv4 bool=true Enable or disable IPv4 addresses
- ipv6 bool Enable or disable IPv6 addresses
- label list Set a label on the network
o opt map=map[] Set driver options
- scope string Scope of the network
- subnet strings Subnet in CIDR format
""",
    "network graph": """
a all bool Show containers that do not run, too
- format string=tree Form of the picture (tree, dot, svg, json)
""",
    "network rename": "",
    "network rm": "f force bool Do not fail if the network does not exist",
    "network connect": """
- alias strings Add a name of the container in the network
- driver-opt strings Driver options of the network
- gw-priority int The network with the highest value gives the default gateway
- ip string IPv4 address (e.g., "172.30.100.104")
- ip6 string IPv6 address (e.g., "2001:db8::33")
- link list Add a link to another container
- link-local-ip strings Add a link-local address of the container
""",
    "network disconnect": "f force bool Disconnect by force",
    "network prune": _PRUNE,
}
