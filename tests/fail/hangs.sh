#!/usr/bin/env bash
# hangs.sh: a rank that hangs in one call or another is named, with the section it is in, and the whole job is gone in time.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL hangs_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
. tests/fail/hang.inc

hang init MPI_Init_thread 1 2 'rank [01] .* in "MPI_Init_thread"' &
hang comm_dup MPI_Comm_dup 1 2 '"MPI_Comm_dup"' &
hang split MPI_Comm_split 1 2 'rank 1 .*"MPI_Comm_split" .*asleep' &
hang collective MPI_Iallgather 1 3 'rank 1 .*"all-gather"' HANG_AT=9 &
wait
hang send MPI_Isend 1 2 'rank 1 .*"(all-gather|reduce-scatter)".* at sft step' HANG_AT=40 &
hang file_open MPI_File_open 0 2 'rank 0 .*"ncmpi_create" .*history.nc' HANG_PATH=history.nc &
hang rollouts MPI_File_write_at_all 1 2 'rank 1 .*"ncmpi_wait_all" .*rollouts.nc. at ppo step 1' &
hang data pread 1 2 'rank 1 .*"(opening a data set|reading a tokenizer|reading samples)" .*all.h5' HANG_PATH=all.h5 HANG_AT=4 &
wait
hang checkpoint pwrite 0 2 'rank 0 .*"writing a checkpoint" .* at sft step 3' HANG_PATH=sft-000003 &
hang sync fsync 0 2 'rank 0 .* at sft step 3' HANG_PATH=sft-000003 &
hang model pread 1 2 'rank 1 .*"(opening|reading) a model" .*sft.h5. at rm' HANG_PATH=models/sft &
hang finalize MPI_Finalize 1 2 'rank 1 .*"MPI_Finalize" .*asleep' -- job.stages=sft &
wait

# An MPI library that allows no threads.
out=$hang_here/single
timeout 60 mpirun -np 2 -genv LD_PRELOAD "$PWD/$hang_here/hang.so" -genv HANG_CALL MPI_Init_thread -genv HANG_RANK 0 -genv HANG_HOW single \
    ./dschat "$tiny_params" job.out="$out" >"$out.log" 2>&1
code=$?
if [ $code = 6 ] && grep -q 'MPI_THREAD_FUNNELED' "$out.log"; then echo "ok hang_no_threads"
else echo "FAIL hang_no_threads: exit code $code: $(tail -n 1 "$out.log")"; fi

# A library gives up.
out=$hang_here/abort
timeout 60 mpirun -np 2 -genv LD_PRELOAD "$PWD/$hang_here/hang.so" -genv HANG_CALL MPI_Isend -genv HANG_RANK 1 -genv HANG_AT 40 -genv HANG_HOW abort \
    ./dschat "$tiny_params" job.out="$out" $hang_quick >"$out.log" 2>&1
code=$?
if [ $code = 6 ] && grep -q 'rank 1 .* signal ABRT in ".*" at sft step' "$out.log"; then echo "ok hang_abort"
else echo "FAIL hang_abort: exit code $code, expected 6: $(grep -m 1 '^dschat: ' "$out.log")"; fi

# One rank's fsync of a file that all share fails: the others do not wait for it.
out=$hang_here/shared_sync
timeout 100 mpirun -np 2 -genv LD_PRELOAD "$PWD/$hang_here/hang.so" -genv HANG_CALL fsync -genv HANG_RANK 0 -genv HANG_PATH rollouts.nc \
    -genv HANG_HOW fail ./dschat "$tiny_params" job.out="$out" $hang_quick job.deadline_minutes=0.5 >"$out.log" 2>&1
code=$?
if [ $code = 4 ] && [ "$(grep -c 'rollouts.nc: fsync failed' "$out.log")" = 1 ]; then echo "ok hang_shared_sync"
else echo "FAIL hang_shared_sync: exit code $code, expected 4: $(tail -n 1 "$out.log")"; fi

# A rank is stopped at some moment of start, stages and end; one that goes on in time is no reason for anything.
stop stopped_1 2 0.$((RANDOM % 10)) 0 &
stop stopped_2 4 $((1 + RANDOM % 3)).$((RANDOM % 10)) 0 &
stop stopped_3 2 $((2 + RANDOM % 5)).$((RANDOM % 10)) 0 &
wait
# Ranks that take each other for ranks of other nodes see each other through files.
hang far MPI_Isend 1 3 'rank 1 .*"(all-gather|reduce-scatter)".* at sft step' HANG_AT=40 MPIR_CVAR_NOLOCAL=1 &
hang far_model pread 1 2 'rank 1 .*"(opening|reading) a model" .*sft.h5. at rm' HANG_PATH=models/sft MPIR_CVAR_NOLOCAL=1 &
MPIR_CVAR_NOLOCAL=1 stop far_stopped 2 $((4 + RANDOM % 2)).$((RANDOM % 10)) 0 &
MPIR_CVAR_NOLOCAL=1 limit=0.1 stop far_goes_on 2 $((2 + RANDOM % 3)).$((RANDOM % 10)) 4 &
wait
[ -z "$(find "$hang_here/far_goes_on" -name .watch)" ] || echo "FAIL hang_far_files: $(find "$hang_here/far_goes_on/.watch") is left"
limit=0.1 stop goes_on_1 2 $((1 + RANDOM % 2)).$((RANDOM % 10)) 4 &
limit=0.1 stop goes_on_2 4 $((2 + RANDOM % 4)).$((RANDOM % 10)) 4 &
wait
