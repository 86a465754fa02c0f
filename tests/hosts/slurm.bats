# agentpool-host over srun: a real Slurm of three nodes on loopback, with keys, ports and state of its own.

load ../mount/helper
load hosts_helper

PATH=$PATH:/usr/sbin:/sbin

is_installed() {
    local program
    for program in slurmctld slurmd srun munged; do command -v $program > /dev/null || return 1; done
}

setup_file() {
    if ! is_root || ! is_installed; then return; fi
    export SLURM=$BATS_FILE_TMPDIR/slurm SLURM_CONF=$BATS_FILE_TMPDIR/slurm/slurm.conf
    begin_slurm
}

teardown_file() {
    [ -n "${SLURM:-}" ] || return 0
    local pids pid
    mapfile -t pids < <(cat "$SLURM"/*.pid)
    for pid in "${pids[@]}"; do
        kill "$pid" 2> /dev/null || true
    done
    for pid in "${pids[@]}"; do
        await gone "$pid"
    done
}

setup() {
    needs_root "slurmd"
    is_installed || skip "slurmctld, slurmd, slurm-client or munge is not installed"
    common_setup
}

teardown() {
    [ -n "${SLURM:-}" ] || return 0
    if [ -n "${JOB_ID:-}" ]; then
        scancel "$JOB_ID"
        await bash -c "! squeue -h -j $JOB_ID -t RUNNING,COMPLETING -o %T | grep ."
    fi
    common_teardown
}

# So many ports of loopback in a row, all free now: the first of them.
free_ports() { # N
    python3 - "$1" << 'END'
import random, socket, sys
n = int(sys.argv[1])
while True:
    first = random.randrange(20000, 32000)
    try:
        held = [socket.create_server(("127.0.0.1", first + i)) for i in range(n)]
    except OSError:
        continue
    print(first)
    break
END
}

begin_slurm() {
    local port n host
    host=$(hostname -s)
    port=$(free_ports 4)
    mkdir -p "$SLURM"/{state,spool}
    chmod 755 "$SLURM"
    head -c 1024 /dev/urandom > "$SLURM/key"
    chmod 600 "$SLURM/key"
    cat > "$SLURM_CONF" << END
ClusterName=agentpool
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$SLURM/munge
SlurmctldPort=$port
SlurmctldPidFile=$SLURM/slurmctld.pid
SlurmctldLogFile=$SLURM/slurmctld.log
StateSaveLocation=$SLURM/state
SlurmdPidFile=$SLURM/slurmd.%n.pid
SlurmdLogFile=$SLURM/slurmd.%n.log
SlurmdSpoolDir=$SLURM/spool/%n
SlurmdParameters=config_overrides
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
KillWait=2
PropagateResourceLimits=NONE
END
    for n in 1 2 3; do
        echo "NodeName=n$n NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + n)) CPUs=8 RealMemory=6000 State=UNKNOWN"
    done >> "$SLURM_CONF"
    echo 'PartitionName=agents Nodes=n[1-3] Default=YES MaxTime=INFINITE State=UP' >> "$SLURM_CONF"
    munged --force --socket="$SLURM/munge" --key-file="$SLURM/key" --pid-file="$SLURM/munged.pid" \
        --log-file="$SLURM/munged.log" --seed-file="$SLURM/munge.seed" 3>&- &
    await bash -c "munge -n -S '$SLURM/munge' | unmunge -S '$SLURM/munge'"
    slurmctld -c -f "$SLURM_CONF" 3>&-
    for n in 1 2 3; do
        mkdir -p "$SLURM/spool/n$n"
        slurmd -N "n$n" -f "$SLURM_CONF" 3>&-
    done
    await bash -c '[ "$(sinfo -h -N -o %T | grep -c "^idle$")" = 3 ]'
}

# Begins a job that keeps a place on that node.
begin_job() { # NODE
    JOB_ID=$(sbatch --parsable --no-requeue -w "$1" -n1 -c1 --mem=200M -o /dev/null --wrap 'exec sleep infinity')
    await bash -c "[ \"\$(squeue -h -j $JOB_ID -o '%T %N')\" = 'RUNNING $1' ]"
    CARRIER=(srun --overlap --jobid="$JOB_ID" -n1 -Q)
}

@test "a pool is used by srun, inside a job that has its place on a node" {
    begin_job n2
    carries
    assert_equal "$("${CARRIER[@]}" printenv SLURMD_NODENAME)" n2
    prints_latency srun
}

@test "a job that is cancelled ends the connection, and what waits for it" {
    begin_job n3
    mount_pool 1 1
    stays_connected
    scancel "$JOB_ID"
    await value_is "$POOL/stats/waiting" 0
    await value_is "$POOL/stats/idle_agents" 1
}
