"""The flags of `run` and `create`."""

CREATE = """
- add-host list Add a host name and its address (host:ip)
- annotation map=map[] Add an annotation that the runtime sees
a attach list Attach to STDIN, STDOUT or STDERR
- blkio-weight uint16 Block IO weight, 10 to 1000, or 0 to disable (default 0)
- blkio-weight-device list=[] Block IO weight of one device
- cap-add list Add Linux capabilities
- cap-drop list Drop Linux capabilities
- cgroup-parent string Parent cgroup of the container
- cgroupns string Cgroup namespace to use (host|private)
- cidfile string Write the container ID to the file
- cpu-count int CPU count (Windows only)
- cpu-percent int CPU percent (Windows only)
- cpu-period int Limit CPU CFS (Completely Fair Scheduler) period
- cpu-quota int Limit CPU CFS (Completely Fair Scheduler) quota
- cpu-rt-period int Limit CPU real-time period in microseconds
- cpu-rt-runtime int Limit CPU real-time runtime in microseconds
c cpu-shares int CPU shares (relative weight)
- cpus decimal Number of CPUs
- cpuset-cpus string CPUs in which to allow execution (0-3, 0,1)
- cpuset-mems string MEMs in which to allow execution (0-3, 0,1)
- device list Add a host device to the container
- device-cgroup-rule list Add a rule to the list of allowed devices
- device-read-bps list=[] Limit read rate (bytes per second) from a device
- device-read-iops list=[] Limit read rate (IO per second) from a device
- device-write-bps list=[] Limit write rate (bytes per second) to a device
- device-write-iops list=[] Limit write rate (IO per second) to a device
- disable-content-trust bool=true Skip image verification
- dns list Set DNS servers
- dns-opt! list Set DNS options
- dns-option list Set DNS options
- dns-search list Set DNS search domains
- domainname string NIS domain name of the container
- entrypoint string Overwrite the ENTRYPOINT of the image
e env list Set environment variables
- env-file list Read environment variables from a file
- expose list Expose a port or a range of ports
- gpus gpu-request GPU devices to add ('all' to pass all GPUs)
- group-add list Add groups to join
- health-cmd string Command that checks health
- health-interval duration Time between two checks (ms|s|m|h)
- health-on-failure string What to do with an unhealthy container ("none", "kill", "restart", "stop")
- health-retries int Failures in a row that mean unhealthy
- health-start-interval duration Time between checks during the start period (ms|s|m|h)
- health-start-period duration Time to start before failures count (ms|s|m|h)
- health-timeout duration Time that one check may take (ms|s|m|h)
- help bool Print usage
h hostname string Host name of the container
- init bool Run an init inside that forwards signals and reaps processes
i interactive bool Keep STDIN open even if not attached
- io-maxbandwidth bytes Maximum IO bandwidth of the system drive (Windows only)
- io-maxiops uint Maximum IOps of the system drive (Windows only)
- ip string IPv4 address (e.g., 172.30.100.104)
- ip6 string IPv6 address (e.g., 2001:db8::33)
- ipc string IPC mode to use
- isolation string Container isolation technology
- kernel-memory bytes Kernel memory limit
l label list Set a label on the container
- label-file list Read labels from a file, one a line
- link list Add a link to another container
- link-local-ip list IPv4/IPv6 link-local addresses of the container
- log-driver string Logging driver of the container
- log-opt list Log driver options
- mac-address string MAC address of the container (e.g., 92:d0:c6:0a:29:33)
m memory bytes Memory limit
- memory-reservation bytes Memory soft limit
- memory-swap bytes Limit of memory and swap together: '-1' for unlimited swap
- memory-swappiness int=-1 Tune memory swappiness (0 to 100)
- mount mount Attach a filesystem mount to the container
- name string Assign a name to the container
- net! network Connect the container to a network
- net-alias! list Add a name of the container in its network
- network network Connect the container to a network
- network-alias list Add a name of the container in its network
- no-healthcheck bool Disable the HEALTHCHECK of the image
- oom-kill-disable bool Disable the OOM killer
- oom-score-adj int Tune the host's OOM preferences (-1000 to 1000)
- pid string PID namespace to use
- pids-limit int Limit the number of processes (-1 for unlimited)
- platform string Set the platform if the server has several
- privileged bool Give extended privileges to the container
p publish list Publish a port of the container to the host
P publish-all bool Publish all exposed ports to random ports
- pull string=missing Pull the image before running ("always", "missing", "never")
q quiet bool Suppress the pull output
- read-only bool Mount the root filesystem of the container read only
- restart string=no What to do when the container exits
- rm bool Remove the container and its anonymous volumes when it exits
- runtime string Runtime to use for the container
- config list Give a config of the engine (NAME or source=NAME,target=PATH,uid=,gid=,mode=)
- secret list Give a secret of the engine (NAME or source=NAME,target=PATH,uid=,gid=,mode=)
- security-opt list Security options
- shm-size bytes Size of /dev/shm
- stop-signal string Signal that stops the container
- stop-timeout int Seconds to wait before the container is killed
- storage-opt list Storage driver options of the container
- sysctl map=map[] Sysctl options
- tmpfs list Mount a tmpfs folder
- timeout uint Seconds after which the container is stopped; the same as --ttl
- ttl duration Time after which the container is stopped (ms|s|m|h)
t tty bool Allocate a pseudo-TTY
- ulimit ulimit=[] Ulimit options
- use-api-socket bool Bind mount the API socket and its credentials
u user string User name or id (format: <name|uid>[:<group|gid>])
- userns string User namespace to use
- uts string UTS namespace to use
v volume list Bind mount a volume
- volume-driver string Volume driver of the container
- volumes-from list Mount the volumes of other containers
w workdir string Working directory inside the container
"""

RUN = (
    CREATE
    + """
d detach bool Run the container in the background and print its ID
- detach-keys string Override the keys that detach from the container
- sig-proxy bool=true Pass received signals to the process
"""
)
