#!/usr/bin/env bash
# hangs.sh: a rank that hangs in one call or another is named, with the section it is in, and the whole job is gone in time; a slow one is not.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL hangs_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
. tests/fail/hang.inc

hang init MPI_Init_thread 1 2 'rank [01] .* in "MPI_Init_thread"' &
hang comm_dup MPI_Comm_dup 1 2 '"MPI_Comm_dup"' &
hang split MPI_Comm_split 1 2 'rank 1 .*"MPI_Comm_split" .*asleep' &
hang collective MPI_Iallgather 1 3 'rank 1 .*"all-gather"' HANG_AT=9 &
hang file_open MPI_File_open 0 2 'rank 0 .*"ncmpi_create" .*history.nc' HANG_PATH=history.nc &
hang data pread 1 2 'rank 1 .*"(opening a data set|reading a tokenizer|reading samples)" .*all.h5' HANG_PATH=all.h5 HANG_AT=4 &
wait
hang send MPI_Isend 1 2 'rank 1 .*"(all-gather|reduce-scatter)".* at sft step' HANG_AT=40 &
hang rollouts MPI_File_write_at_all 1 2 'rank 1 .*"ncmpi_wait_all" .*rollouts.nc. at ppo step 1' &
hang checkpoint pwrite 0 2 'rank 0 .*"writing a checkpoint" .* at sft step 3' HANG_PATH=sft-000003 &
hang sync fsync 0 2 'rank 0 .* at sft step 3' HANG_PATH=sft-000003 &
hang model pread 1 2 'rank 1 .*"(opening|reading) a model" .*sft.h5. at rm' HANG_PATH=models/sft &
hang finalize MPI_Finalize 1 2 'rank 1 .*"MPI_Finalize" .*asleep' -- job.stages=sft &
wait
hang exit exit 1 2 'rank 1 .*"ending the process" .*asleep' -- job.stages=sft &
parting parting &
many init_many 8 &
wait

# ends NAME CODE PATTERN CALL RANK HOW [VAR=value ...]: a job in which CALL goes wrong in another way ends with CODE and says PATTERN.
ends() {
    local name=$1 want=$2 pattern=$3 out=$hang_here/$1 code
    env HANG_CALL="$4" HANG_RANK="$5" HANG_HOW="$6" "${@:7}" timeout -s KILL $hang_patience mpirun -np 2 -genv LD_PRELOAD "$hang_here/hang.so" ./dschat \
        "$tiny_params" job.out="$out" job.deadline_minutes="$(minutes 0.5)" $hang_quick >"$out.log" 2>&1
    code=$?
    if [ $code = "$want" ] && [ "$(grep -c -E "$pattern" "$out.log")" = 1 ]; then echo "ok hang_$name"
    else echo "FAIL hang_$name: exit code $code, expected $want: $(grep -v '^ *$' "$out.log" | tail -n 1)"; fi
}
ends no_threads 6 'MPI_THREAD_FUNNELED' MPI_Init_thread 0 single &
ends library_aborts 6 'rank 1 .* signal ABRT in ".*" at sft step' MPI_Isend 1 abort HANG_AT=40 &
ends shared_sync 4 'rollouts.nc: fsync failed' fsync 0 fail HANG_PATH=rollouts.nc & # the other rank does not wait for this one's

# A rank is stopped at some moment of start, stages and end.
stop stopped_1 2 0.$((RANDOM % 10)) 0 &
stop stopped_2 4 $((1 + RANDOM % 3)).$((RANDOM % 10)) 0 &
stop stopped_3 2 $((2 + RANDOM % 5)).$((RANDOM % 10)) 0 &
wait

# Ranks that take each other for ranks of other nodes see each other through files.
hang far MPI_Isend 1 3 'rank 1 .*"(all-gather|reduce-scatter)".* at sft step' HANG_AT=40 MPIR_CVAR_NOLOCAL=1 &
hang far_model pread 1 2 'rank 1 .*"(opening|reading) a model" .*sft.h5. at rm' HANG_PATH=models/sft MPIR_CVAR_NOLOCAL=1 &
MPIR_CVAR_NOLOCAL=1 stop far_stopped 2 $((4 + RANDOM % 2)).$((RANDOM % 10)) 0 &
wait

# Slow is not hung.
slow disk_slow pwrite 0 sft-000003 &
slow disk_slow_far pread 1 models/sft MPIR_CVAR_NOLOCAL=1 &
crawl crawls 12 &
debugged debugged &
limit=0.1 stop goes_on_1 2 $((1 + RANDOM % 2)).$((RANDOM % 10)) 4 &
limit=0.1 stop goes_on_2 4 $((2 + RANDOM % 4)).$((RANDOM % 10)) 4 &
MPIR_CVAR_NOLOCAL=1 limit=0.1 stop far_goes_on 2 $((2 + RANDOM % 3)).$((RANDOM % 10)) 4 &
wait
[ -z "$(find "$hang_here/far_goes_on" -name .watch)" ] || echo "FAIL hang_far_files: $(find "$hang_here/far_goes_on/.watch") is left"
