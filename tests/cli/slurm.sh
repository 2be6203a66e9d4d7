#!/usr/bin/env bash
# slurm.sh: under a real Slurm, of one node that this test starts: srun without an MPI is refused by one task and writes nothing; srun --mpi=pmi2, a
# plain start and mpirun in a batch script run. Skipped where slurmctld, slurmd and munged are not installed (Debian: slurmctld slurmd slurm-client
# munge), or for others than root.
set -u
for program in slurmctld slurmd munged mungekey srun sbatch; do
    command -v $program >/dev/null || { echo "skip slurm: $program is not installed"; exit 0; }
done
[ "$(id -u)" = 0 ] || { echo "skip slurm: its daemons need root here"; exit 0; }
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL slurm_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
bad=0
here=$PWD/build/tmp/slurm
rm -rf "$here" && mkdir -p "$here"
ok() { echo "ok slurm_$1"; }
fail() { echo "FAIL slurm_$1: $2"; bad=1; }
short="sft.max_steps=2 rm.max_steps=2 ppo.max_steps=2"

# The cluster lies in a folder of its own: munged refuses one that others could change.
at=$(mktemp -d) && mkdir "$at/state" "$at/spool" "$at/munge" && chmod 755 "$at" && chmod 700 "$at/munge"
end_cluster() {
    local name pid
    for name in slurmd slurmctld munge/pid; do
        pid=$(cat "$at/$name" 2>/dev/null) || continue
        kill "$pid" 2>/dev/null
        for i in $(seq 100); do [ -e "$at/$name" ] || break; sleep 0.1; done # each removes its file at its end
    done
    rm -rf "$at"
}
trap end_cluster EXIT
port=$((20000 + $$ % 20000))
cat >"$at/slurm.conf" <<CONF
ClusterName=here
SlurmctldHost=$(uname -n)(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$at/munge.sock
CredType=cred/munge
SlurmUser=root
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$at/state
SlurmdSpoolDir=$at/spool
SlurmctldPidFile=$at/slurmctld
SlurmdPidFile=$at/slurmd
SlurmctldLogFile=$at/slurmctld.log
SlurmdLogFile=$at/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/linear
ReturnToService=2
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
NodeName=$(uname -n) NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=p Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$at/slurm.conf
{
    mungekey -c -k "$at/munge/key" &&
        munged -f -S "$at/munge.sock" --key-file="$at/munge/key" --pid-file="$at/munge/pid" --log-file="$at/munge/log" --seed-file="$at/munge/seed" &&
        slurmctld -f "$SLURM_CONF" && slurmd -f "$SLURM_CONF"
} >"$here/cluster.log" 2>&1 || { echo "skip slurm: no cluster here: $(tail -n 1 "$here/cluster.log")"; exit 0; }
for i in $(seq 100); do
    [ "$(sinfo -h -o %t 2>/dev/null)" = idle ] && break
    sleep 0.3
done
[ "$(sinfo -h -o %t 2>/dev/null)" = idle ] || { echo "skip slurm: the node does not come up: $(tail -n 1 "$at/slurmctld.log")"; exit 0; }

# Two tasks that MPI does not know of each other.
timeout 60 srun -n 2 ./dschat "$tiny_params" job.out="$here/two" $short >"$here/two.log" 2>&1
code=$?
if [ $code != 2 ] || [ "$(grep -c '^error: ' "$here/two.log")" != 1 ] || ! grep -q 'srun started 2 tasks.*--mpi=pmi2' "$here/two.log"; then
    fail singletons "exit code $code: $(head -n 2 "$here/two.log")"
elif [ -e "$here/two" ]; then fail singletons "wrote $here/two"
else ok singletons; fi
# Two jobs at once on one folder, as single tasks.
timeout 240 salloc -n 2 bash -c "for i in 1 2; do (srun --overlap -n 1 ./dschat $tiny_params job.out=$here/one $short >$here/one.\$i.log 2>&1; echo \$? >$here/one.\$i.code) & done; wait" >/dev/null 2>&1
codes=$(cat "$here/one.1.code" "$here/one.2.code" | sort -n | tr '\n' ' ')
case $codes in
"0 11 " | "0 0 ") # the second may have come when all was done
    [ "$(grep -c '^start' "$here/one/starts.log")" = 1 ] && ok two_jobs || fail two_jobs "two starts worked" ;;
*) fail two_jobs "exit codes $codes: $(tail -n 1 "$here/one.2.log")" ;;
esac
timeout 120 srun --mpi=pmi2 -n 2 ./dschat "$tiny_params" job.out="$here/pmi2" $short >"$here/pmi2.log" 2>&1
code=$?
[ $code = 0 ] && grep -q ' 2 ranks' "$here/pmi2/log.txt" && ok pmi2 || fail pmi2 "exit code $code: $(tail -n 1 "$here/pmi2.log")"
# In a batch script of two tasks: a plain start is one rank, mpirun as many as it says.
cat >"$here/batch.sh" <<BATCH
#!/bin/bash
cd $PWD
./dschat $tiny_params job.out=$here/plain $short || exit 11\$?
mpirun -np 2 ./dschat $tiny_params job.out=$here/mpirun $short || exit 12\$?
mpirun -np 1 ./dschat $tiny_params job.out=$here/mpirun1 $short || exit 13\$?
BATCH
timeout 240 sbatch -W -n 2 -o "$here/batch.log" "$here/batch.sh" >/dev/null 2>&1
code=$?
[ $code = 0 ] && grep -q ' 2 ranks' "$here/mpirun/log.txt" && ok batch || fail batch "exit code $code: $(tail -n 2 "$here/batch.log" 2>&1)"
exit $bad
